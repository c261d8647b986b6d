package format

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// sealed adds to a manifest's first line the second, so that only what the line
// says can be wrong.
func sealed(text []byte) []byte {
	return fmt.Appendf(nil, "%s\nsha256:%x\n", text, sha256.Sum256(text))
}

// addTable appends a table with the given contents to the manifest's nth shard,
// as it is or as if sealed for some keys.
func (m *Manifest) addTable(shard int, contents string, keys ...string) {
	s := &m.Shards[shard]
	stored := contents
	if len(keys) > 0 {
		stored = "sealed " + contents
	}
	sum, storedSum := sha256.Sum256([]byte(contents)), sha256.Sum256([]byte(stored))
	t := Table{
		Name: m.TableName(s.Partition, len(s.Tables), storedSum, len(keys) > 0),
		Size: int64(len(contents)), SHA256: hex.EncodeToString(sum[:]),
	}
	if m.Format > 1 {
		t.StoredSize, t.StoredSHA256, t.Keys = int64(len(stored)), hex.EncodeToString(storedSum[:]), append([]string{}, keys...)
	}
	s.Tables = append(s.Tables, t)
}

// sample is a manifest in which every field has a value.
func sample() *Manifest {
	created := time.Date(2026, 11, 23, 8, 42, 40, 123e6, time.UTC)
	m := &Manifest{
		Format: Version, ID: NewID(created, [4]byte{0x1f, 0x0c, 0x77, 0xaa}), Kind: Delta, Region: "us-east-1",
		Parents: []string{NewID(created.Add(-time.Hour), [4]byte{1}), NewID(created.Add(-time.Minute), [4]byte{2})},
		Created: created, Software: "evenkeel 0.1.0",
		Merge: map[events.Stream]string{"session": "lww", "config": "multivalue"},
		Shards: []Shard{
			{Partition: 0, Lineage: "0190c9d2", States: []events.LogState{}, Tables: []Table{}},
			{Partition: 1, Lineage: "0190c9d3", Epoch: 17, Tables: []Table{}, States: []events.LogState{
				{
					Log: events.Log{Origin: events.FirstOrigin("eu-west-1"), Stream: "config", Partition: 1}, Next: 7,
					Chain: events.Digest{0xc1}, Digest: events.Digest{0xd1}, Keys: 3, Bytes: 60, Events: 6, Parked: 1,
				},
				{
					Log: events.Log{Origin: events.Origin{Region: "us-east-1", Incarnation: 2}, Stream: "session", Partition: 1}, Next: 1 << 40,
					Chain: events.Digest{0xc2, 15: 0xfe}, Digest: events.Digest{0xd2, 15: 0xff}, Keys: 1 << 33, Bytes: 1 << 41, Events: 1 << 40,
				},
			}},
		},
	}
	m.addTable(1, "first table", "00112233445566aa", "8899aabbccddeeff")
	m.addTable(1, "second table")
	m.Shards[1].Firsts = []byte("sealed keys")
	m.Groups = &Groups{Offsets: 3, Keys: []string{"00112233445566aa", "8899aabbccddeeff"}, Data: []byte("sealed offsets")}
	return m
}

// sample3 is what format 3 can say of the sample.
func sample3() *Manifest {
	m := sample()
	m.Format, m.Groups = 3, nil
	return m
}

// sampleFull is the sample as a backup that holds all.
func sampleFull() *Manifest {
	m := sample()
	m.Kind, m.Parents = Full, nil
	return m
}

// sample2 is what format 2 can say of the sample.
func sample2() *Manifest {
	m := sampleFull()
	m.Format, m.Shards[1].Firsts, m.Groups = 2, nil, nil
	return m
}

// sample1 is what format 1 can say of the sample.
func sample1() *Manifest {
	m := sample2()
	m.Format, m.Kind, m.Shards[1].Epoch, m.Shards[1].Tables = 1, "", 0, []Table{}
	for i := range m.Shards[1].States {
		m.Shards[1].States[i].Chain = events.Digest{} // known since later than the golden manifest
	}
	m.addTable(1, "first table")
	m.addTable(1, "second table")
	return m
}

// drawManifest draws any manifest that is well formed.
func drawManifest(t *rapid.T) *Manifest {
	created := time.UnixMilli(rapid.Int64Range(10, 4e12).Draw(t, "created")).UTC()
	label := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?`)
	m := &Manifest{
		Format: rapid.IntRange(1, Version).Draw(t, "format"), ID: NewID(created, [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "random"))),
		Region: events.Region(label.Draw(t, "region")), Created: created,
		Software: rapid.String().Draw(t, "software"), Merge: map[events.Stream]string{},
	}
	if m.Format > 1 {
		m.Kind = Full
	}
	if m.Format > 2 && rapid.Bool().Draw(t, "delta") {
		m.Kind = Delta
		at := rapid.SliceOfNDistinct(rapid.Int64Range(0, created.UnixMilli()-1), 1, 5, rapid.ID).Draw(t, "parents")
		slices.Sort(at)
		for _, millis := range at {
			m.Parents = append(m.Parents, NewID(time.UnixMilli(millis), [4]byte{}))
		}
	}
	if m.Format > 3 && rapid.Bool().Draw(t, "with groups") {
		m.Groups = &Groups{
			Offsets: rapid.Int64Range(1, 1<<40).Draw(t, "offsets"), Data: rapid.SliceOfN(rapid.Byte(), 1, 30).Draw(t, "groups"),
			Keys: rapid.SliceOfNDistinct(rapid.StringMatching(`[0-9a-f]{16}`), 0, 3, rapid.ID).Draw(t, "keys of groups"),
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "streams") {
		m.Merge[events.Stream(label.Draw(t, "stream"))] = label.Draw(t, "rule")
	}
	for p := range rapid.IntRange(1, 4).Draw(t, "shards") {
		m.Shards = append(m.Shards, Shard{
			Partition: int32(p), Lineage: rapid.StringN(1, 20, -1).Draw(t, "lineage"),
			States: drawStates(t, int32(p)), Tables: []Table{},
		})
		if m.Format > 1 {
			m.Shards[p].Epoch = events.Epoch(rapid.Uint64().Draw(t, "epoch"))
		}
		for range rapid.IntRange(0, 4).Draw(t, "tables") {
			var keys []string
			if m.Format > 1 {
				keys = rapid.SliceOfNDistinct(rapid.StringMatching(`[0-9a-f]{16}`), 0, 3, rapid.ID).Draw(t, "keys")
			}
			m.addTable(p, rapid.StringN(1, 30, -1).Draw(t, "table"), keys...)
		}
		if m.Format > 2 && len(m.Shards[p].Tables) > 0 && rapid.Bool().Draw(t, "with first keys") {
			m.Shards[p].Firsts = rapid.SliceOfN(rapid.Byte(), 1, 30).Draw(t, "first keys")
		}
	}
	return m
}

func drawStates(t *rapid.T, partition int32) []events.LogState {
	states := []events.LogState{}
	count := rapid.Int64Range(0, 1<<62)
	for i := range rapid.IntRange(0, 4).Draw(t, "logs") {
		states = append(states, events.LogState{
			Log: events.Log{
				Origin: events.Origin{Region: events.Region(fmt.Sprintf("region-%d", i)), Incarnation: rapid.Uint32Min(1).Draw(t, "incarnation")},
				Stream: "session", Partition: partition,
			},
			Next: count.Draw(t, "next"), Keys: count.Draw(t, "keys"), Bytes: count.Draw(t, "bytes"),
			Events: count.Draw(t, "events"), Parked: count.Draw(t, "parked"),
			Digest: events.Digest(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "digest")),
			Chain:  events.Digest(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "chain")),
		})
	}
	return states
}
