package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// sampleSegment is a header in which every field has a value.
func sampleSegment() *Segment {
	session := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: 3}
	config := events.Log{Origin: events.FirstOrigin("eu-west-1"), Stream: "config", Partition: 3}
	idle := events.Log{Origin: events.FirstOrigin("us-west-1"), Stream: "config", Partition: 3}
	plain, stored := sha256.Sum256([]byte("payload")), sha256.Sum256([]byte("sealed payload"))
	return &Segment{
		Format: SegmentVersion, Region: "us-east-1", Shard: 3, Number: 42, Created: time.Date(2026, 11, 26, 13, 40, 5, 250e6, time.UTC), Epoch: 17,
		Software: "evenkeel 0.1.0", Void: []Range{{First: 7, Last: 7}, {First: 40, Last: 41}},
		Ends: []LogEnd{
			{Log: config, Next: 5000, Chain: events.Digest{0xc1}, Last: events.Digest{0xe1}},
			{Log: session, Next: 1 << 40, Chain: events.Digest{0xc2}, Last: events.Digest{0xe2}},
			{Log: idle, Next: 0},
		},
		Parts: []SegmentPart{
			{
				Log: config, From: 4990, To: 5000, Before: events.Digest{0xb1}, Records: 9, Bytes: 900,
				Gap: &Gap{From: 4000, Reason: "the log did not have it any more"},
				Blocks: []Block{
					{First: 4990, Last: 4994, Records: 5, MinTime: 1000, MaxTime: 2000, At: 0, Length: 70},
					{First: 4996, Last: 4999, Records: 4, MinTime: -5, MaxTime: 1, At: 70, Length: 30},
				},
			},
			{
				Log: session, From: 1<<40 - 1, To: 1 << 40, Before: events.Digest{0xb2}, Records: 1, Bytes: 10,
				Mark:   &events.Mark{Next: 1 << 40, Chain: events.Digest{0xc2}, Digest: events.Digest{0xd1}, Keys: 7, Bytes: 70},
				Blocks: []Block{{First: 1<<40 - 1, Last: 1<<40 - 1, Records: 1, MinTime: 3, MaxTime: 3, At: 100, Length: 80}},
			},
		},
		Size: 180, SHA256: hex.EncodeToString(plain[:]), StoredSize: 400, StoredSHA256: hex.EncodeToString(stored[:]),
		Keys: []string{"00112233445566aa", "8899aabbccddeeff"},
	}
}

func mustEncodeSegment(t *testing.T, s *Segment) []byte {
	t.Helper()
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// samplesOfSegments are headers of each format in which every field has a value.
func samplesOfSegments() map[int]*Segment {
	first := sampleSegment()
	first.Format, first.Void = 1, nil
	for i := range first.Ends {
		first.Ends[i].Last = events.Digest{}
	}
	return map[int]*Segment{1: first, 2: sampleSegment()}
}

// The golden header of each format is what Encode still writes, byte by byte, and is read as
// what it was.
func TestGoldenSegment(t *testing.T) {
	samples := samplesOfSegments()
	if len(samples) != SegmentVersion {
		t.Fatalf("%d samples of %d formats", len(samples), SegmentVersion)
	}
	for version, sample := range samples {
		name := filepath.Join("testdata", fmt.Sprintf("segment-%d.golden", version))
		text := mustEncodeSegment(t, sample)
		if *update {
			if err := addGolden(name, text); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("%v; add it with -update", err)
		}
		if !bytes.Equal(golden, text) {
			t.Errorf("the sample is written as\n%s\nthe golden header is\n%s", text, golden)
		}
		s, rest, complete, err := DecodeSegment(append(golden, "payload"...))
		if err != nil || !complete || string(rest) != "payload" {
			t.Fatalf("complete %t, rest %q, %v", complete, rest, err)
		}
		if !reflect.DeepEqual(s, sample) {
			t.Errorf("the golden header is read as\n%+v\nwant\n%+v", s, sample)
		}
	}
}

// Of an object of which too little was read nothing is believed.
func TestSegmentHeaderInPieces(t *testing.T) {
	text := mustEncodeSegment(t, sampleSegment())
	for n := range text {
		if s, _, complete, err := DecodeSegment(text[:n]); s != nil || complete || err != nil {
			t.Fatalf("%d of %d bytes: %v, complete %t, %v", n, len(text), s, complete, err)
		}
	}
	for n := range text {
		bad := bytes.Clone(text)
		bad[n] ^= 0x20
		if _, _, complete, err := DecodeSegment(bad); complete && events.KindOf(err) != events.KindInconsistent {
			t.Fatalf("byte %d changed: %v", n, err)
		}
	}
}

func TestSegmentRefuses(t *testing.T) {
	for name, change := range map[string]func(*Segment){
		"format 0":                  func(s *Segment) { s.Format = 0 },
		"a later format":            func(s *Segment) { s.Format++ },
		"no region":                 func(s *Segment) { s.Region = "" },
		"number 0":                  func(s *Segment) { s.Number = 0 },
		"void segments of format 1": func(s *Segment) { s.Format = 1 },
		"last records of format 1":  func(s *Segment) { s.Format, s.Void = 1, nil },
		"void from 0":               func(s *Segment) { s.Void[0].First = 0 },
		"void backwards":            func(s *Segment) { s.Void[0].Last = 6 },
		"void ranges that adjoin":   func(s *Segment) { s.Void[0].Last = 39 },
		"it is void itself":         func(s *Segment) { s.Void[1].Last = 42 },
		"a last record of nothing":  func(s *Segment) { s.Ends[2].Last = events.Digest{1} },
		"negative shard":            func(s *Segment) { s.Shard = -1 },
		"local time":                func(s *Segment) { s.Created = s.Created.In(time.FixedZone("", 3600)) },
		"no ends":                   func(s *Segment) { s.Ends = nil },
		"an end twice":              func(s *Segment) { s.Ends[1] = s.Ends[0] },
		"end of another shard":      func(s *Segment) { s.Ends[2].Log.Partition++ },
		"part without end":          func(s *Segment) { s.Ends = s.Ends[1:] },
		"part ends elsewhere":       func(s *Segment) { s.Ends[0].Next++ },
		"parts out of order":        func(s *Segment) { s.Parts[0], s.Parts[1] = s.Parts[1], s.Parts[0] },
		"backwards":                 func(s *Segment) { s.Parts[0].From = s.Parts[0].To + 1 },
		"empty gap":                 func(s *Segment) { s.Parts[0].Gap.From = s.Parts[0].From },
		"gap without reason":        func(s *Segment) { s.Parts[0].Gap.Reason = "" },
		"mark of another place":     func(s *Segment) { s.Parts[1].Mark.Next-- },
		"mark with other chain":     func(s *Segment) { s.Parts[1].Mark.Chain = events.Digest{} },
		"block before the part":     func(s *Segment) { s.Parts[0].Blocks[0].First-- },
		"block behind the part":     func(s *Segment) { s.Parts[0].Blocks[1].Last++ },
		"blocks overlap":            func(s *Segment) { s.Parts[0].Blocks[1].First = 4994 },
		"more than fit":             func(s *Segment) { s.Parts[0].Blocks[0].Records, s.Parts[0].Records = 6, 10 },
		"records miscounted":        func(s *Segment) { s.Parts[0].Records++ },
		"blocks apart":              func(s *Segment) { s.Parts[0].Blocks[1].At++ },
		"payload too short":         func(s *Segment) { s.Size-- },
		"no hash":                   func(s *Segment) { s.SHA256 = "" },
		"hash in capitals":          func(s *Segment) { s.StoredSHA256 = strings.ToUpper(s.StoredSHA256) },
		"plain and yet other":       func(s *Segment) { s.Keys = []string{} },
		"a key twice":               func(s *Segment) { s.Keys[1] = s.Keys[0] },
	} {
		s := sampleSegment()
		change(s)
		if err := s.Validate(); events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestSegmentFollows(t *testing.T) {
	next := func() *Segment {
		s := sampleSegment()
		s.Number++
		part := SegmentPart{Log: s.Ends[1].Log, From: s.Ends[1].Next, To: s.Ends[1].Next + 5, Before: s.Ends[1].Chain, Blocks: []Block{}}
		s.Ends[1].Next, s.Ends[1].Chain = part.To, events.Digest{0xc3}
		s.Parts, s.Size = []SegmentPart{part}, 0
		return s
	}
	if err := next().Follows(sampleSegment()); err != nil {
		t.Error(err)
	}
	gap := next()
	gap.Parts[0].Gap, gap.Parts[0].From, gap.Parts[0].Before = &Gap{From: gap.Parts[0].From, Reason: "x"}, gap.Parts[0].From+2, events.Digest{}
	if err := gap.Follows(sampleSegment()); err != nil {
		t.Errorf("over a gap: %v", err)
	}
	void := next()
	void.Number, void.Void = 45, append(void.Void, Range{First: 43, Last: 44})
	if err := void.Follows(sampleSegment()); err != nil || !void.IsVoid(44) || void.IsVoid(42) {
		t.Errorf("over void segments: %v", err)
	}
	for name, change := range map[string]func(*Segment){
		"the one before is void": func(s *Segment) { s.Void = append(s.Void, Range{First: 42, Last: 42}) },
		"closed before":          func(s *Segment) { s.Created = s.Created.Add(-1) },
		"number left out":        func(s *Segment) { s.Number++ },
		"another shard":          func(s *Segment) { s.Shard++ },
		"records left out":       func(s *Segment) { s.Parts[0].From++ },
		"records twice":          func(s *Segment) { s.Parts[0].From-- },
		"another chain":          func(s *Segment) { s.Parts[0].Before[3]++ },
		"an idle log has moved":  func(s *Segment) { s.Ends[0].Next++ },
		"an idle chain changed":  func(s *Segment) { s.Ends[0].Chain[0]++ },
		"a log is gone":          func(s *Segment) { s.Ends = s.Ends[1:] },
	} {
		s := next()
		change(s)
		if err := s.Follows(sampleSegment()); events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeSegment(f *testing.F) {
	text, err := sampleSegment().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.TrimSuffix(text[:bytes.IndexByte(text, '\n')], []byte("\n")))
	f.Fuzz(func(t *testing.T, line []byte) {
		s, _, complete, err := DecodeSegment(sealed(line))
		if err != nil || !complete {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		if same, _, _, err := DecodeSegment(again); err != nil || !reflect.DeepEqual(s, same) {
			t.Errorf("%+v\nis read again as\n%+v, %v", s, same, err)
		}
	})
}
