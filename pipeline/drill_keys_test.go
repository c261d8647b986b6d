package pipeline_test

import (
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

const recipientAge = "evenkeel_backup_recipient_proved_age_seconds"

// keyIDs are those of keys.
var keyIDs = [2]string{seal.KeyID(keys[0].recipient), seal.KeyID(keys[1].recipient)}

// drillWith drills as an operator does who has nothing but some identities.
func (r *region) drillWith(identities string) *format.Drill {
	r.w.Helper()
	time.Sleep(time.Second)
	opener, err := seal.NewOpener("the safe", identities)
	if err != nil {
		r.w.Fatal(err)
	}
	d, err := pipeline.Backups{Config: r.cfg, Bucket: r.bucket, Opener: opener, FS: r.disk, Log: slog.New(slog.NewTextHandler(r.log, nil))}.Drill(r.w.Context())
	if err != nil {
		r.w.Fatal(err)
	}
	return d
}

// proved is what the bucket tells of a key that the newest backup is sealed for.
func (r *region) proved(key string) *api.RecipientProof {
	r.w.Helper()
	s, err := r.BackupStatus(r.w.Context())
	if err != nil {
		r.w.Fatal(err)
	}
	for i := range s.Recipients {
		if s.Recipients[i].Key == key {
			return &s.Recipients[i]
		}
	}
	return nil
}

// The node proves its own key by its drills; the recovery key is proved by whoever drills with it alone, and that is told
// for as long as backups are sealed for it, however many drills come after.
func TestDrillsProveEachKey(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		b := r.backup()
		if p := r.proved(keyIDs[0]); p == nil || p.Proved != nil || !math.IsInf(r.gauge(recipientAge, keyIDs[0]), 1) {
			t.Errorf("before a drill: %+v", p)
		}
		d := r.drill()
		for _, trial := range d.Trials {
			if !slices.Equal(trial.OpenedBy, keyIDs[:1]) {
				t.Errorf("opened by %q, want the operating key %s", trial.OpenedBy, keyIDs[0])
			}
		}
		if at := r.gauge(recipientAge, keyIDs[0]); !(at <= 10) {
			t.Errorf("right after the drill the operating key is proved for a state of %f s ago", at)
		}
		if p := r.proved(keyIDs[0]); p.Proved == nil || !p.Proved.Equal(b.Created) || p.Drill != d.ID {
			t.Errorf("operating key: %+v", p)
		}
		if p := r.proved(keyIDs[1]); p == nil || p.Proved != nil || !math.IsInf(r.gauge(recipientAge, keyIDs[1]), 1) {
			t.Errorf("the recovery key was never used, and is: %+v", p)
		}

		safe := r.drillWith(keys[1].identity)
		for _, trial := range safe.Trials {
			if !slices.Equal(trial.OpenedBy, keyIDs[1:]) || trial.Error != "" {
				t.Errorf("opened by %q, want the recovery key %s: %s", trial.OpenedBy, keyIDs[1], trial.Error)
			}
		}
		for range 12 { // more than are looked at
			r.drill()
		}
		if p := r.proved(keyIDs[1]); p.Proved == nil || p.Drill != safe.ID || !p.Proved.Equal(b.Created) {
			t.Errorf("recovery key: %+v", p)
		}
		r.away(24 * time.Hour)
		r.proved(keyIDs[1]) // reads the bucket
		if at := r.gauge(recipientAge, keyIDs[1]); !(at >= 86400 && at <= 87000) {
			t.Errorf("a day later the recovery key is proved for a state of %f s ago", at)
		}

		text, err := objstore.ReadAll(r.w.Context(), r.bucket, format.DrillName(us, safe.ID), 1<<20)
		if err != nil || strings.Contains(strings.ToUpper(string(text)+r.log.String()), "AGE-SECRET-KEY") {
			t.Errorf("a secret is told: %v", err)
		}
	})
}

// A key that does not fit proves nothing, and takes nothing from what others have proved.
func TestDrillWithTheWrongKey(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		r.drillWith(keys[1].identity)
		before := r.proved(keyIDs[1])
		stranger, _, err := seal.Generate(false, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		d := r.drillWith(stranger)
		if err := d.Err(); err == nil || !strings.Contains(err.Error(), "no identity fits") || len(d.Trials[0].OpenedBy) > 0 {
			t.Errorf("%+v, %v", d, err)
		}
		if after := r.proved(keyIDs[1]); after.Proved == nil || after.Drill != before.Drill {
			t.Errorf("recovery key: %+v, before %+v", after, before)
		}
		if d := r.drillWith(stranger + keys[1].identity); d.Err() != nil || !slices.Equal(d.Trials[0].OpenedBy, keyIDs[1:]) {
			t.Errorf("a stranger's key beside the right one: %+v", d)
		}
	})
}

// What is told are the keys of the newest backup: one that is new is proved by nothing, one that backups are not
// sealed for any more needs no proof.
func TestDrillsOfAKeyThatIsReplaced(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		r.drillWith(keys[1].identity)
		r.stop()
		identity, recipient, err := seal.Generate(false, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		r.cfg.Backup.Recipients = []string{keys[0].recipient, recipient}
		r.start()
		time.Sleep(time.Second)
		r.backup()
		if p := r.proved(seal.KeyID(recipient)); p == nil || p.Proved != nil {
			t.Errorf("the new key: %+v", p)
		}
		if p := r.proved(keyIDs[1]); p != nil {
			t.Errorf("the key that was replaced: %+v", p)
		}
		if d := r.drillWith(identity); d.Trials[0].Error != "" {
			t.Errorf("%+v", d)
		}
		if p := r.proved(seal.KeyID(recipient)); p.Proved == nil {
			t.Errorf("the new key: %+v", p)
		}
	})
}

// A long drill that began before others and ended after them is not forgotten; what a wrong clock has dated hides nothing;
// reports of older formats are passed over.
func TestProofsOfOtherDrills(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		began := time.Now().UTC().Truncate(time.Millisecond)
		r.drill()
		publish := func(formatted int, id string, proofs ...format.Proof) {
			t.Helper()
			err := catalog.PublishDrill(r.w.Context(), r.bucket, &format.Drill{
				Format: formatted, Region: us, ID: id, Created: began, Software: "test", Owner: "test", Proofs: proofs,
				Trials: []format.Trial{{Aim: "newest", StateTime: began, States: []events.LogState{}}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		long := format.NewID(began.Add(-time.Minute), [4]byte{1})
		publish(3, long, format.Proof{Key: keyIDs[1], Drill: long, StateTime: began})
		publish(3, format.NewID(began.Add(time.Millisecond), [4]byte{2}), format.Proof{Key: keyIDs[1], Drill: long, StateTime: began.Add(48 * time.Hour)})
		publish(2, format.NewID(began.Add(2*time.Millisecond), [4]byte{3}))
		if p := r.proved(keyIDs[1]); p == nil || p.Drill != long || p.Proved == nil || !p.Proved.Equal(began) {
			t.Errorf("%+v", p)
		}
		d := r.drill()
		want := format.Proof{Key: keyIDs[1], Drill: long, StateTime: began}
		if !slices.Contains(d.Proofs, want) || len(d.Proofs) != 2 {
			t.Errorf("the next drill has the proofs %+v, want %+v among them", d.Proofs, want)
		}
	})
}
