package format

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func mustEncode(t testing.TB, m *Manifest) []byte {
	t.Helper()
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestEncodeThenDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawManifest(t)
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(m, decoded) {
			t.Fatalf("decoded:\n%+v\nencoded:\n%+v", decoded, m)
		}
	})
}

// Damage of any kind is refused as damage.
func TestDamageIsRefused(t *testing.T) {
	whole := mustEncode(t, sample())
	refused := func(what string, at int, damaged []byte) {
		t.Helper()
		m, err := Decode(damaged)
		if events.KindOf(err) != events.KindInconsistent || m != nil {
			t.Errorf("%s at %d: %v, %v", what, at, m, err)
		}
	}
	for at := range whole {
		for bit := range 8 {
			flipped := bytes.Clone(whole)
			flipped[at] ^= 1 << bit
			refused("bit flipped", at, flipped)
		}
		refused("truncated", at, whole[:at])
		refused("first bytes lost", at+1, whole[at+1:])
		refused("byte lost", at, slices.Delete(bytes.Clone(whole), at, at+1))
		refused("byte added", at, slices.Insert(bytes.Clone(whole), at, ' '))
	}
	refused("line added", len(whole), append(bytes.Clone(whole), '\n'))
	refused("twice", len(whole), slices.Concat(whole, whole))
}

// What is whole and yet no manifest of this format.
func TestMalformedIsRefused(t *testing.T) {
	const (
		id      = `"id":"20261123T084240.123Z-1f0c77aa"`
		parents = `"parents":["20261123T074240.123Z-01000000","20261123T084140.123Z-02000000"]`
	)
	for _, test := range []struct {
		name     string
		old, new string // replaced in the sample's first line
		kind     events.Kind
		says     string
	}{
		{"higher format", `"format":4`, `"format":5`, events.KindRefused, "use a newer one"},
		{"much higher format", `"format":4`, `"format":3000000`, events.KindRefused, "reads 1 to 4"},
		{"higher format with other fields", `"format":4,"id"`, `"format":5,"name"`, events.KindRefused, "use a newer one"},
		{"format zero", `"format":4`, `"format":0`, events.KindRefused, "format 0"},
		{"negative format", `"format":4`, `"format":-1`, events.KindRefused, "format -1"},
		{"no format", `"format":4,`, ``, events.KindRefused, "format 0"},
		{"format as text", `"format":4`, `"format":"4"`, events.KindInconsistent, "no JSON"},
		{"no object", `{"format"`, `[{"format"`, events.KindInconsistent, "no JSON"},
		{"more after the object", `nNldHM="}}`, `nNldHM="}} {}`, events.KindInconsistent, "no JSON"},
		{"unknown field", `"format":4`, `"format":4,"extra":1`, events.KindInconsistent, "extra"},
		{"unknown field of a shard", `"partition":0`, `"partition":0,"extra":1`, events.KindInconsistent, "extra"},
		{"unknown field of a state", `"parked":1`, `"parked":1,"extra":1`, events.KindInconsistent, "extra"},
		{"unknown field of a table", `"size":11`, `"size":11,"extra":1`, events.KindInconsistent, "extra"},
		{"no id", `"id":"20261123T084240.123Z-1f0c77aa"`, `"id":""`, events.KindInconsistent, `id ""`},
		{"id of another form", `"id":"20261123T084240.123Z-1f0c77aa"`, `"id":"20261123T084240.123Z-1f0c77aA"`, events.KindInconsistent, "id"},
		{"id that leads elsewhere", `"id":"20261123T084240.123Z-1f0c77aa"`, `"id":"../20261123T084240.123Z-1f0c77aa"`, events.KindInconsistent, "id"},
		{"malformed region", `"region":"us-east-1"`, `"region":"US"`, events.KindInconsistent, "region"},
		{"another region", `"region":"us-east-1"`, `"region":"us-east-2"`, events.KindInconsistent, "table"},
		{"not created", `"created":"2026-11-23T08:42:40.123Z",`, ``, events.KindInconsistent, "created"},
		{"created elsewhere than in UTC", `08:42:40.123Z"`, `08:42:40.123+01:00"`, events.KindInconsistent, "UTC"},
		{"no rules", `"merge":{"config":"multivalue","session":"lww"},`, ``, events.KindInconsistent, "merge"},
		{"rules null", `"merge":{"config":"multivalue","session":"lww"}`, `"merge":null`, events.KindInconsistent, "merge"},
		{"malformed stream", `"config":"multivalue"`, `"Config":"multivalue"`, events.KindInconsistent, "stream"},
		{"empty rule", `"config":"multivalue"`, `"config":""`, events.KindInconsistent, "rule"},
		{"shards in another order", `"partition":0`, `"partition":1`, events.KindInconsistent, "place 0"},
		{"shard missing", `"partition":1`, `"partition":2`, events.KindInconsistent, "place 1"},
		{"no lineage", `"lineage":"0190c9d3"`, `"lineage":""`, events.KindInconsistent, "shard 1: lineage"},
		{"states null", `"states":[]`, `"states":null`, events.KindInconsistent, "shard 0"},
		{"tables null", `"tables":[]`, `"tables":null`, events.KindInconsistent, "shard 0"},
		{"malformed log", `"eu-west-1/config/1"`, `"eu-west-1/config/01"`, events.KindInconsistent, "log"},
		{"log of another shard", `"eu-west-1/config/1"`, `"eu-west-1/config/0"`, events.KindInconsistent, "belong"},
		{"logs in another order", `"eu-west-1/config/1"`, `"us-east-1_3/config/1"`, events.KindInconsistent, "stands after"},
		{"log twice", `"eu-west-1/config/1"`, `"us-east-1_2/session/1"`, events.KindInconsistent, "stands after"},
		{"negative next", `"next":7`, `"next":-7`, events.KindInconsistent, "belong"},
		{"negative keys", `"keys":3`, `"keys":-3`, events.KindInconsistent, "belong"},
		{"negative bytes", `"bytes":60`, `"bytes":-60`, events.KindInconsistent, "belong"},
		{"negative events", `"events":6`, `"events":-6`, events.KindInconsistent, "belong"},
		{"negative parked", `"parked":1`, `"parked":-1`, events.KindInconsistent, "belong"},
		{"short digest", `"digest":"d1`, `"digest":"`, events.KindInconsistent, "digest"},
		{"table of no bytes", `"size":11`, `"size":0`, events.KindInconsistent, "malformed"},
		{"negative size", `"size":11`, `"size":-11`, events.KindInconsistent, "malformed"},
		{"size beyond numbers", `"size":11`, `"size":9223372036854775808`, events.KindInconsistent, "number"},
		{"no kind", `"kind":"delta",`, ``, events.KindInconsistent, "kind"},
		{"unknown kind", `"kind":"delta"`, `"kind":"half"`, events.KindInconsistent, `"half"`},
		{"format 1 with a kind", `"format":4`, `"format":1`, events.KindInconsistent, "kind"},
		{"format 1 with an epoch", `"format":4,` + id + `,"kind":"delta",` + parents, `"format":1,` + id, events.KindInconsistent, "epoch"},
		{"format 2 with a delta", `"format":4`, `"format":2`, events.KindInconsistent, "kind"},
		{"format 2 with parents", `"format":4,` + id + `,"kind":"delta"`, `"format":2,` + id + `,"kind":"full"`, events.KindInconsistent, "parents"},
		{"full with parents", `"kind":"delta"`, `"kind":"full"`, events.KindInconsistent, "2 parents"},
		{"delta without parents", parents, `"parents":[]`, events.KindInconsistent, "0 parents"},
		{"delta with parents null", parents, `"parents":null`, events.KindInconsistent, "0 parents"},
		{"malformed parent", `20261123T074240.123Z-01000000`, `../20261123T074240.123Z-01000000`, events.KindInconsistent, "place 0"},
		{"parent of later", `20261123T084140.123Z-02000000`, `20261123T084240.123Z-1f0c77aa`, events.KindInconsistent, "place 1"},
		{"parents in another order", `20261123T074240.123Z-01000000`, `20261123T084140.123Z-02000000`, events.KindInconsistent, "place 1"},
		{"format 2 with first keys", `"format":4,` + id + `,"kind":"delta",` + parents, `"format":2,` + id + `,"kind":"full"`, events.KindInconsistent, "firsts"},
		{"format 3 with groups", `"format":4`, `"format":3`, events.KindInconsistent, "groups"},
		{"groups without data", `"data":"c2VhbGVkIG9mZnNldHM="`, `"data":""`, events.KindInconsistent, "groups"},
		{"first keys of no table", `"tables":[]`, `"tables":[],"firsts":"AA=="`, events.KindInconsistent, "firsts"},
		{"first keys that are none", `"firsts":"c2VhbGVkIGtleXM="`, `"firsts":""`, events.KindInconsistent, "firsts"},
		{"no stored hash", `"stored_sha256":"1060b1239b5494048533715853e506191f7ac97c45ad096762c0ee97aa0ef200",`, ``, events.KindInconsistent, "stored hash"},
		{"no keys", `,"keys":[]`, ``, events.KindInconsistent, "keys"},
		{"keys null", `"keys":[]`, `"keys":null`, events.KindInconsistent, "keys"},
		{"malformed key", `"00112233445566aa"`, `"00112233445566AA"`, events.KindInconsistent, "key id"},
		{"key twice", `"8899aabbccddeeff"`, `"00112233445566aa"`, events.KindInconsistent, "key id"},
		{"sealed and says not", `["00112233445566aa","8899aabbccddeeff"]`, `[]`, events.KindInconsistent, "not sealed"},
		{"not sealed and says so", `"keys":[]`, `"keys":["00112233445566aa"]`, events.KindInconsistent, "place 1"},
		{"stored size zero", `"stored_size":18`, `"stored_size":0`, events.KindInconsistent, "malformed"},
		{"table at another place", `000000-`, `000001-`, events.KindInconsistent, "place 0"},
		{"table of another backup", `tables/20261123T084240.123Z-1f0c77aa`, `tables/20261123T084240.123Z-00000000`, events.KindInconsistent, "place 0"},
		{"table of another shard", `shard-0001/000000`, `shard-0000/000000`, events.KindInconsistent, "place 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, _, _ := bytes.Cut(mustEncode(t, sample()), []byte("\n"))
			changed := strings.Replace(string(text), test.old, test.new, 1)
			if changed == string(text) {
				t.Fatalf("the sample does not say %s: the test tests nothing\n%s", test.old, text)
			}
			m, err := Decode(sealed([]byte(changed)))
			if events.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.says) || m != nil {
				t.Errorf("got %v, %v; want kind %q, %q in the message", m, err, test.kind, test.says)
			}
		})
	}
}

// What Decode refuses, Encode does not write.
func TestMalformedIsNotWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(m *Manifest)
	}{
		{"no shards", func(m *Manifest) { m.Shards = nil }},
		{"another format", func(m *Manifest) { m.Format++ }},
		{"more parents than can be read", func(m *Manifest) {
			m.Parents = nil
			for i := range MaxParents + 1 {
				m.Parents = append(m.Parents, NewID(time.UnixMilli(int64(i)), [4]byte{}))
			}
		}},
		{"keys of a format without", func(m *Manifest) { *m = *sample1(); m.Shards[1].Tables[0].Keys = []string{} }},
		{"no id", func(m *Manifest) { m.ID = "" }},
		{"local time", func(m *Manifest) { m.Created = m.Created.In(time.FixedZone("", 3600)) }},
		{"shards in another order", func(m *Manifest) { slices.Reverse(m.Shards) }},
		{"tables in another order", func(m *Manifest) { slices.Reverse(m.Shards[1].Tables) }},
		{"hash of another table", func(m *Manifest) { m.Shards[1].Tables[0].StoredSHA256 = m.Shards[1].Tables[1].SHA256 }},
		{"hash in capitals", func(m *Manifest) { m.Shards[1].Tables[0].SHA256 = strings.ToUpper(m.Shards[1].Tables[0].SHA256) }},
		{"hash that is none", func(m *Manifest) { m.Shards[1].Tables[0].SHA256 = strings.Repeat("x", 64) }},
		{"short hash", func(m *Manifest) { m.Shards[1].Tables[0].SHA256 = "00" }},
		{"states in another order", func(m *Manifest) { slices.Reverse(m.Shards[1].States) }},
		{"larger than can be read", func(m *Manifest) { m.Software = strings.Repeat("x", MaxManifestBytes) }},
	} {
		m := sample()
		test.change(m)
		if text, err := m.Encode(); err == nil || text != nil {
			t.Errorf("%s: written", test.name)
		}
	}
}

func TestNames(t *testing.T) {
	m := sample()
	sum := [sha256.Size]byte{0: 0xab, 7: 0xcd, 8: 0xff}
	for sealed, want := range map[bool]string{
		false: "us-east-1/tables/20261123T084240.123Z-1f0c77aa/shard-0007/000012-ab000000000000cd.sst",
		true:  "us-east-1/tables/20261123T084240.123Z-1f0c77aa/shard-0007/000012-ab000000000000cd.sst.age",
	} {
		got := m.TableName(7, 12, sum, sealed)
		if got != want {
			t.Errorf("table: %s, want %s", got, want)
		}
		if id, ok := ParseTableName(m.Region, got); !ok || id != m.ID {
			t.Errorf("%s comes back as %q, %t", got, id, ok)
		}
	}
	for _, foreign := range []string{
		"us-east-1/tables/", "us-east-1/tables/" + m.ID, "us-east-1/tables/" + m.ID + "/shard-0007/000012-ab.sst",
		"us-east-1/tables/" + m.ID + "/shard-0007/000012-ab000000000000cd.sst.gz", "us-east-1/tables/x/shard-0007/000012-ab000000000000cd.sst",
		"us/tables/" + m.ID + "/shard-0007/000012-ab000000000000cd.sst",
	} {
		if id, ok := ParseTableName("us-east-1", foreign); ok || id != "" {
			t.Errorf("%q is taken for a table of %q", foreign, id)
		}
	}
	if got, want := ManifestName(m.Region, m.ID), "us-east-1/manifests/20261123T084240.123Z-1f0c77aa.manifest"; got != want {
		t.Errorf("manifest: %s, want %s", got, want)
	}
	for _, foreign := range []string{
		"us-east-1/manifests/", "us-east-1/manifests/.manifest", "us-east-1/manifests/README", "us-east-1/manifests/notes.manifest",
		"us-east-1/manifests/" + m.ID, "us-east-1/manifests/" + m.ID + ".manifest.old", "us-east-1/manifests/old/" + m.ID + ".manifest",
		"us-east-1/tables/" + m.ID + ".manifest", "us-east-2/manifests/" + m.ID + ".manifest", m.ID + ".manifest", "",
	} {
		if id, ok := ParseManifestName("us-east-1", foreign); ok || id != "" {
			t.Errorf("%q is taken for backup %q", foreign, id)
		}
	}
}

// Ids sort by time, whatever is random in them, and names lead back to them.
func TestIDsSortByTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		millis := rapid.Int64Range(0, 250_000_000_000_000) // to the year 9892
		random := rapid.SliceOfN(rapid.Byte(), 4, 4)
		a, b := millis.Draw(t, "a"), millis.Draw(t, "b")
		zone := time.FixedZone("", rapid.IntRange(-12, 14).Draw(t, "zone")*3600)
		idA := NewID(time.UnixMilli(a).In(zone), [4]byte(random.Draw(t, "random a")))
		idB := NewID(time.UnixMilli(b), [4]byte(random.Draw(t, "random b")))
		if a < b && idA >= idB || a > b && idA <= idB {
			t.Errorf("%d is %s, %d is %s", a, idA, b, idB)
		}
		if at, err := IDTime(idA); err != nil || !at.Equal(time.UnixMilli(a)) {
			t.Errorf("%s is of %s, want %d: %v", idA, at, a, err)
		}
		if !ValidID(idA) {
			t.Errorf("%s is not valid", idA)
		}
		if id, ok := ParseManifestName("eu", ManifestName("eu", idA)); !ok || id != idA {
			t.Errorf("%s comes back as %q, %t", idA, id, ok)
		}
	})
}

// Forms are what regular expressions say of the same names.
func TestForms(t *testing.T) {
	for form, expression := range map[string]string{
		idForm:     `^[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{8}$`,
		keyForm:    `^[0-9a-f]{16}$`,
		numberForm: `^[0-9]{10}$`,
		uniqueForm: `^[0-9a-f]{16}\.pin$`,
	} {
		re := regexp.MustCompile(expression)
		t.Run(form, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				text := []byte(rapid.StringMatching(expression).Draw(t, "text"))
				for range rapid.IntRange(0, 2).Draw(t, "changes") {
					at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
					switch b := rapid.SampledFrom([]byte("019/:afgAF`T.Z-p\n\x00\xff")).Draw(t, "byte"); rapid.IntRange(0, 2).Draw(t, "how") {
					case 0:
						text[at] = b
					case 1:
						text = slices.Insert(text, at, b)
					default:
						text = slices.Delete(text, at, at+1)
					}
				}
				if got, want := hasForm(string(text), form), re.Match(text); got != want {
					t.Errorf("%q: %t, want %t", text, got, want)
				}
			})
		})
	}
	for _, end := range []string{"", "\n", "0"} {
		if id := sample().ID + end; ValidID(id) != (end == "") {
			t.Errorf("%q", id)
		}
	}
}

// White space behind the object is none of its own; anything else is.
func TestWhatStandsBehind(t *testing.T) {
	text, _, _ := bytes.Cut(mustEncode(t, sample()), []byte("\n"))
	for behind, good := range map[string]bool{"": true, " \t\r": true, "x": false, "\v": false, " null": false} {
		m, err := Decode(sealed(slices.Concat(text, []byte(behind))))
		if good && (err != nil || !reflect.DeepEqual(m, sample())) || !good && events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%q: %+v, %v", behind, m, err)
		}
	}
}

func TestBytesAndStates(t *testing.T) {
	m := sample()
	if n, stored := m.Bytes(), m.StoredBytes(); n != 23 || stored != 30 {
		t.Errorf("%d bytes, %d stored", n, stored)
	}
	if keys := m.Keys(); !slices.Equal(keys, []string{"00112233445566aa", "8899aabbccddeeff"}) || len(sample1().Keys()) > 0 {
		t.Errorf("keys: %q", keys)
	}
	if states := m.States(); !reflect.DeepEqual(states, m.Shards[1].States) {
		t.Errorf("states: %v", states)
	}
}

// What a backup is made of: a full of itself, a delta of its parents as well.
func TestPath(t *testing.T) {
	m, full := sample(), sampleFull()
	if p := m.Path(); len(p) != 3 || p[2] != m.ID || p[1] != m.Parent() || m.Parents[0] != p[0] {
		t.Errorf("%q, parent %q", p, m.Parent())
	}
	if p := full.Path(); full.Parent() != "" || !slices.Equal(p, []string{full.ID}) {
		t.Errorf("%q, parent %q", p, full.Parent())
	}
}

// Whatever the bytes, Decode returns; and what it takes can be written again.
func FuzzDecode(f *testing.F) {
	whole := mustEncode(f, sample())
	text, _, _ := bytes.Cut(whole, []byte("\n"))
	f.Add(whole)
	f.Add(text)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":3}`))
	f.Add([]byte(`{"format":4}`))
	f.Add(mustEncode(f, sampleFull()))
	f.Add(mustEncode(f, sample1()))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, input := range [][]byte{b, sealed(b)} {
			m, err := Decode(input)
			if err != nil {
				if m != nil {
					t.Errorf("a manifest together with %v", err)
				}
				continue
			}
			again, err := Decode(mustEncode(t, m))
			if err != nil || !reflect.DeepEqual(m, again) {
				t.Errorf("decoded again: %+v, %v; at first: %+v", again, err, m)
			}
		}
	})
}
