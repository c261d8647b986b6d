package snapshotter_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Offsets of groups come back out of a manifest with one of its keys, and with no other;
// damage to them is refused.
func TestGroupsAreSealed(t *testing.T) {
	identity, recipient, err := seal.Generate(false, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := seal.Generate(false, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.NewSealer([]string{recipient, other})
	if err != nil {
		t.Fatal(err)
	}
	opener, err := seal.NewOpener("identity", identity)
	if err != nil {
		t.Fatal(err)
	}
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session"}
	want := []format.GroupOffset{{Group: "a", Log: log, Next: 7, Metadata: "m"}, {Group: "b", Log: log}}
	for name, s := range map[string]*seal.Sealer{"sealed": sealer, "plain": seal.None()} {
		groups, err := snapshotter.SealGroups(s, want)
		if err != nil || groups.Offsets != 2 || len(groups.Keys) != len(s.Keys()) {
			t.Fatalf("%s: %+v, %v", name, groups, err)
		}
		m := &format.Manifest{ID: "id", Groups: groups}
		got, err := restore.Source{Opener: opener}.Groups(m)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if _, err := (restore.Source{}).Groups(m); (err != nil) != (name == "sealed") {
			t.Errorf("%s, without a key: %v", name, err)
		}
		groups.Data[len(groups.Data)-1] ^= 1
		if got, err := (restore.Source{Opener: opener}).Groups(m); err == nil && name == "sealed" {
			t.Errorf("%s: damaged: %+v", name, got)
		}
	}
	if groups, err := snapshotter.SealGroups(sealer, nil); groups != nil || err != nil {
		t.Errorf("none: %+v, %v", groups, err)
	}
}
