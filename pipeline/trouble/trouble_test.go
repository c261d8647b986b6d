package trouble_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/trouble"
)

// What is not told again is over, and what was never told is not there.
func TestIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none *trouble.Recent
		told := &trouble.Recent{Err: io.EOF, At: time.Now()}
		if none.IsFresh() || !told.IsFresh() {
			t.Error("right after it was told")
		}
		time.Sleep(14 * time.Second)
		if !told.IsFresh() {
			t.Error("a client that pauses for ten seconds is said to be well")
		}
		time.Sleep(2 * time.Second)
		if told.IsFresh() {
			t.Error("it lasts for ever")
		}
	})
}
