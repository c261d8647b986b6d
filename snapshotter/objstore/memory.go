package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a bucket in memory, for tests and simulations. It asserts the
// contract: a caller that reuses a deleted name, uses an invalid one or makes a
// name the folder of another gets [ErrInvalid] and is remembered in
// [Memory.Violations].
//
// It outlives the crashes of its clients, starts no goroutine, holds no global
// state and takes the time only from time.Now, so it works in a testing/synctest
// bubble.
type Memory struct {
	name string

	mu         sync.Mutex
	objects    map[string]memoryObject
	names      []string        // the keys of objects, sorted
	retired    map[string]bool // names once deleted
	folders    map[string]int  // folder → number of objects below it
	violations []string
	retention  time.Duration // of what is created; 0: none
}

type memoryObject struct {
	body     []byte // never changed once stored
	modified time.Time
	archived bool
	from, to time.Time // when it is readable although it is archived; zero: nobody has asked
	hold     Hold
}

var _ Bucket = (*Memory)(nil)

// memoryPage is how many names List takes at a time, as S3 does: changes
// between two pages show.
const memoryPage = 1000

// NewMemory returns an empty bucket called name.
func NewMemory(name string) *Memory {
	return &Memory{
		name:    name,
		objects: make(map[string]memoryObject),
		retired: make(map[string]bool),
		folders: make(map[string]int),
	}
}

// Get implements [Reader].
func (m *Memory) Get(ctx context.Context, name string) (io.ReadCloser, Info, error) {
	obj, err := m.find(ctx, OpGet, name)
	if err != nil {
		return nil, Info{}, err
	}
	if !obj.readable(time.Now()) {
		return nil, Info{}, m.fail(OpGet, name, ErrArchived, nil)
	}
	return m.open(ctx, OpGet, name, obj.body), obj.info(name), nil
}

// GetRange implements [Reader].
func (m *Memory) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	obj, err := m.find(ctx, OpGetRange, name)
	if err != nil {
		return nil, err
	}
	if !obj.readable(time.Now()) {
		return nil, m.fail(OpGetRange, name, ErrArchived, nil)
	}
	if err := checkRange(offset, length, int64(len(obj.body))); err != nil {
		return nil, m.fail(OpGetRange, name, ErrInvalid, err)
	}
	return m.open(ctx, OpGetRange, name, obj.body[offset:offset+length]), nil
}

// Stat implements [Reader].
func (m *Memory) Stat(ctx context.Context, name string) (Info, error) {
	obj, err := m.find(ctx, OpStat, name)
	if err != nil {
		return Info{}, err
	}
	info := obj.info(name)
	info.Archived = !obj.readable(time.Now())
	return info, nil
}

// List implements [Reader].
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return m.ListAfter(ctx, prefix, "")
}

// ListAfter implements [Reader].
func (m *Memory) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := validatePrefix(prefix); err != nil {
			yield(Info{}, m.violation(OpList, prefix, err))
			return
		}
		for after := after; ; { // it may be ranged over again
			if err := ctx.Err(); err != nil {
				yield(Info{}, m.fail(OpList, prefix, nil, err))
				return
			}
			page := m.page(prefix, after)
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
			if len(page) < memoryPage {
				return
			}
			after = page[len(page)-1].Name
		}
	}
}

// page returns the first names with prefix that are greater than after.
func (m *Memory) page(prefix, after string) []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, found := slices.BinarySearch(m.names, max(prefix, after))
	if found && m.names[from] == after {
		from++
	}
	var page []Info
	for _, name := range m.names[from:] {
		if !strings.HasPrefix(name, prefix) || len(page) == memoryPage {
			break
		}
		page = append(page, m.objects[name].info(name))
	}
	return page
}

// Create implements [Creator].
func (m *Memory) Create(ctx context.Context, name string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return m.fail(OpCreate, name, nil, err)
	}
	if err := ValidateName(name); err != nil {
		return m.violation(OpCreate, name, err)
	}
	if err := checkSize(len(body)); err != nil {
		return m.fail(OpCreate, name, ErrInvalid, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.objects[name]; ok {
		if bytes.Equal(old.body, body) {
			return nil
		}
		return m.fail(OpCreate, name, ErrExists, nil)
	}
	if m.retired[name] {
		return m.violationLocked(OpCreate, name, errors.New("name was used and deleted before; names are never reused"))
	}
	if m.folders[name] > 0 {
		return m.violationLocked(OpCreate, name, errors.New("name is the folder of other objects"))
	}
	for folder := range folders(name) {
		if _, ok := m.objects[folder]; ok {
			return m.violationLocked(OpCreate, name, fmt.Errorf("its folder %q is an object", folder))
		}
	}
	obj := memoryObject{body: bytes.Clone(body), modified: time.Now()}
	if m.retention > 0 {
		obj.hold = Hold{Until: obj.modified.Add(m.retention), Mode: "COMPLIANCE"}
	}
	m.objects[name] = obj
	at, _ := slices.BinarySearch(m.names, name)
	m.names = slices.Insert(m.names, at, name)
	for folder := range folders(name) {
		m.folders[folder]++
	}
	return nil
}

// Delete implements [Deleter].
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return m.fail(OpDelete, name, nil, err)
	}
	if err := ValidateName(name); err != nil {
		return m.violation(OpDelete, name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[name]
	if !ok {
		return nil
	}
	if obj.hold.Legal || obj.hold.Until.After(time.Now()) {
		return m.fail(OpDelete, name, ErrAccess, fmt.Errorf("object is locked: it is held %s", obj.hold))
	}
	m.removeLocked(name)
	m.retired[name] = true
	return nil
}

func (m *Memory) removeLocked(name string) {
	delete(m.objects, name)
	at, _ := slices.BinarySearch(m.names, name)
	m.names = slices.Delete(m.names, at, at+1)
	for folder := range folders(name) {
		m.folders[folder]--
	}
}

// DeleteAll implements [Deleter].
func (m *Memory) DeleteAll(ctx context.Context, names []string) []error {
	return eachOf(names, func(name string) error { return m.Delete(ctx, name) })
}

// eachOf does something for every name.
func eachOf(names []string, do func(name string) error) []error {
	errs := make([]error, len(names))
	for i, name := range names {
		errs[i] = do(name)
	}
	return errs
}

// What archived objects of a Memory are like.
const (
	archiveClass = "ARCHIVE"
	thawTime     = 4 * time.Hour
)

// Archive archives an object, as rules of a store do: from then on it is to be thawed
// before it can be read, which takes four hours.
func (m *Memory) Archive(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[name]
	if !ok {
		return m.fail("archive", name, ErrNotFound, nil)
	}
	obj.archived = true
	m.objects[name] = obj
	return nil
}

// Thaw implements [Thawer].
func (m *Memory) Thaw(ctx context.Context, name string, days int) (ready bool, err error) {
	obj, err := m.find(ctx, OpThaw, name)
	if err != nil {
		return false, err
	}
	if days < 1 {
		return false, m.fail(OpThaw, name, ErrInvalid, errors.New("want one day or more"))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if obj.archived && !now.Before(obj.to) {
		obj.from, obj.to = now.Add(thawTime), now.Add(thawTime).AddDate(0, 0, days)
		m.objects[name] = obj
	}
	return obj.readable(now), nil
}

func (o memoryObject) readable(now time.Time) bool {
	return !o.archived || !now.Before(o.from) && now.Before(o.to)
}

// Check implements [Bucket].
func (m *Memory) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return m.fail(OpCheck, "", nil, err)
	}
	return nil
}

// String implements [Bucket].
func (m *Memory) String() string { return fmt.Sprintf("bucket %q in memory", m.name) }

// Violations returns what callers did against the contract, oldest first.
func (m *Memory) Violations() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.violations)
}

// Damage replaces the body of an object behind everybody's back by what change
// makes of a copy of it: bit rot for tests. Open bodies are not affected.
func (m *Memory) Damage(name string, change func(body []byte) []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[name]
	if !ok {
		return m.fail("damage", name, ErrNotFound, nil)
	}
	obj.body = change(bytes.Clone(obj.body))
	m.objects[name] = obj
	return nil
}

// Lose removes an object behind everybody's back, as somebody does by hand, or a rule of the
// store. Its name is not retired, as it is after Delete: whoever has the same bytes may bring
// them back.
func (m *Memory) Lose(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; !ok {
		return m.fail("lose", name, ErrNotFound, nil)
	}
	m.removeLocked(name)
	return nil
}

func (m *Memory) find(ctx context.Context, op, name string) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, m.fail(op, name, nil, err)
	}
	if err := ValidateName(name); err != nil {
		return memoryObject{}, m.violation(op, name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[name]
	if !ok {
		return memoryObject{}, m.fail(op, name, ErrNotFound, nil)
	}
	return obj, nil
}

func (m *Memory) open(ctx context.Context, op, name string, body []byte) io.ReadCloser {
	return newBody(io.NopCloser(bytes.NewReader(body)), int64(len(body)), ctx.Err, func(kind, cause error) error {
		return m.fail(op, name, kind, cause)
	})
}

func (m *Memory) fail(op, name string, kind, cause error) error {
	return &Error{Op: op, Bucket: m.String(), Object: name, Kind: kind, Err: cause}
}

func (m *Memory) violation(op, name string, cause error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.violationLocked(op, name, cause)
}

func (m *Memory) violationLocked(op, name string, cause error) error {
	m.violations = append(m.violations, fmt.Sprintf("%s %q: %v", op, name, cause))
	return m.fail(op, name, ErrInvalid, cause)
}

func (o memoryObject) info(name string) Info {
	info := Info{Name: name, Size: int64(len(o.body)), Modified: o.modified}
	if o.archived {
		info.Class = archiveClass
	}
	return info
}

// folders yields every folder that name is in, outermost first.
func folders(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(name) {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}
