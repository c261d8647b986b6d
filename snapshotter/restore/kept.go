package restore

import (
	"container/list"
	"sync"
)

// Kept bounds how many tables that are read in place keep bytes of what they have read last: a quarter of a megabyte each. The one
// that was read longest ago lets go of them first. It is safe for concurrent use.
type Kept struct {
	most int

	mu     sync.Mutex
	tables list.List // of *TableAt; the one that was read last is the first
	at     map[*TableAt]*list.Element
}

// NewKept is for so many tables at most.
func NewKept(most int) *Kept { return &Kept{most: most, at: map[*TableAt]*list.Element{}} }

// use notes that a table is read.
func (k *Kept) use(t *TableAt) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if at, ok := k.at[t]; ok {
		k.tables.MoveToFront(at)
		return
	}
	k.at[t] = k.tables.PushFront(t)
	if len(k.at) > k.most {
		k.drop(k.tables.Back().Value.(*TableAt))
	}
}

// close notes that a table is not read any more.
func (k *Kept) close(t *TableAt) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(t)
}

func (k *Kept) drop(t *TableAt) {
	at, ok := k.at[t]
	if !ok {
		return
	}
	k.tables.Remove(at)
	delete(k.at, t)
	t.at.Forget()
}
