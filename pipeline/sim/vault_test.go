package sim_test

import (
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/sim"
)

// A bucket is written to for weeks: backups, deltas and segments of logs of all rules, that begin with less
// now and then; and is pruned, and restored from, by processes any of which may die at any call. Whatever backup
// exists is the fold of its vector, and none is gone that was to stay.
func TestSimVault(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		v := sim.NewVault(t, seed, *someKeep(seed))
		defer v.Close()
		gone, lacked := 0, 0
		for range 14 {
			work(v)
			for n := range 1 + v.Rand.IntN(4) {
				wantKinds(t, "backup", v.Backup(n > 0 || v.Rand.IntN(3) > 0), events.KindNotFound, events.KindNotReady, events.KindRefused)
				work(v)
			}
			switch v.Rand.IntN(8) {
			case 0:
				v.Pin()
			case 1:
				v.Unpin()
			case 2:
				v.LoseState()
			case 3:
				v.Forget()
			}
			before := v.Stock()
			wantKinds(t, "prune", v.Prune())
			gone += v.CheckPruned(before)
			err := v.Restore(func() { wantKinds(t, "prune", v.Prune()); work(v) })
			if wantKinds(t, "restore", err, events.KindNotFound); err != nil {
				lacked++
			}
			if t.Failed() {
				return
			}
		}
		fulls, deltas := v.CheckBackups()
		t.Logf("%d full backups, %d deltas; %d are gone; %d points were not there", fulls, deltas, gone, lacked)
	})
}

// work writes, folds and archives for a while, and lets time pass.
func work(v *sim.Vault) {
	for range v.Rand.IntN(8) {
		v.WriteSome()
		v.Fold()
		v.Archive()
		time.Sleep(time.Duration(v.Rand.IntN(3)) * time.Second)
	}
	pauses := []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 9 * time.Hour, 50 * time.Hour}
	v.Sleep(time.Duration(v.Rand.Int64N(int64(pauses[v.Rand.IntN(len(pauses))]))))
}

func wantKinds(t *testing.T, what string, err error, kinds ...events.Kind) {
	t.Helper()
	for _, k := range kinds {
		if events.KindOf(err) == k {
			return
		}
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
