package projections

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The time of commits and of their stalls adds up, also while one goes on.
func TestEffort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e effort
		var l pebble.EventListener
		e.watch(&l)
		for i := range 2 {
			err := e.commit(func() error {
				time.Sleep(time.Second)
				l.WriteStallBegin(pebble.WriteStallBeginInfo{})
				time.Sleep(3 * time.Second)
				if sum := e.sum(); !sum.IsStalled || sum.Stalled != time.Duration(3*i+3)*time.Second {
					t.Errorf("in a stall: %+v", sum)
				}
				l.WriteStallEnd()
				l.WriteStallEnd() // of no stall
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if sum := e.sum(); sum.IsStalled || sum.Stalled != 6*time.Second || sum.Committing != 8*time.Second {
			t.Errorf("%+v", sum)
		}
	})
}

func TestStorage(t *testing.T) {
	s, err := Open(Config{Dir: "s", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if st := s.Storage(); st.IsStalled || st.L0Sublevels != 0 || st.DiskBytes <= 0 {
		t.Errorf("%+v", st)
	}
}
