package seal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// stored is an object that is read in ranges.
type stored struct {
	mu     sync.Mutex
	bytes  []byte
	ranges int   // that were read
	read   int   // bytes
	err    error // of all further readings
}

func (s *stored) readRange(_ context.Context, p []byte, offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.ranges, s.read = s.ranges+1, s.read+len(p)
	if offset < 0 || offset+int64(len(p)) > int64(len(s.bytes)) {
		return io.ErrUnexpectedEOF
	}
	copy(p, s.bytes[offset:])
	return nil
}

// pair is a Sealer for two keys and an Opener of the second.
func pair(t testing.TB) (*seal.Sealer, *seal.Opener) {
	t.Helper()
	_, a := key(t, false)
	o, b := key(t, false)
	s, err := seal.NewSealer([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// noise does not compress and repeats nowhere.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}).Read(b)
	return b
}

var sizes = []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 300_000, 1 << 20}

// What is read at any place, in any order, by several at a time, is what was sealed.
func TestOpenAt(t *testing.T) {
	for _, ends := range []seal.Ends{seal.ShortTail, seal.TableTail, seal.TableStart} {
		testOpenAt(t, ends)
	}
}

func testOpenAt(t *testing.T, ends seal.Ends) {
	t.Helper()
	s, o := pair(t)
	for name, sealer := range map[string]*seal.Sealer{"sealed": s, "not sealed": seal.None()} {
		for _, size := range sizes {
			plain := noise(size)
			object := &stored{bytes: sealed(t, sealer, plain)}
			r, err := o.OpenAt(t.Context(), object.readRange, int64(len(object.bytes)), sealer.Keys(), ends)
			if err != nil || r.Size() != int64(size) {
				t.Fatalf("%s, %d bytes: %v, %v", name, size, r, err)
			}
			rapid.Check(t, func(t *rapid.T) {
				from := rapid.IntRange(0, size).Draw(t, "from")
				parts := rapid.SliceOfN(rapid.IntRange(0, size-from), 1, 4).Draw(t, "lengths")
				var g sync.WaitGroup
				errs := make([]error, len(parts))
				for i, n := range parts {
					g.Go(func() {
						got := make([]byte, n)
						errs[i] = r.ReadAt(context.Background(), got, int64(from))
						if errs[i] == nil && !bytes.Equal(got, plain[from:from+n]) {
							errs[i] = fmt.Errorf("%d bytes from %d are others", n, from)
						}
					})
				}
				g.Wait()
				if err := errors.Join(errs...); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			})
			for _, bad := range [][2]int{{-1, 1}, {size, 1}, {size + 1, 0}, {0, size + 1}} {
				if err := r.ReadAt(t.Context(), make([]byte, bad[1]), int64(bad[0])); err == nil {
					t.Errorf("%s: %d of %d bytes from %d were read", name, bad[1], size, bad[0])
				}
			}
		}
	}
}

type reading struct{ offset, length, ranges, most int }

// readsLittle wants each reading to cost so many requests and bytes at most.
func readsLittle(t *testing.T, ends seal.Ends, chunks int, readings ...reading) {
	t.Helper()
	s, o := pair(t)
	object := &stored{bytes: sealed(t, s, noise(10<<20))}
	r, err := o.OpenAt(t.Context(), object.readRange, int64(len(object.bytes)), s.Keys(), ends)
	if err != nil {
		t.Fatal(err)
	}
	if object.ranges > 2 || object.read > chunks*chunk+8<<10 {
		t.Errorf("opened by %d readings of %d bytes", object.ranges, object.read)
	}
	for _, c := range readings {
		object.ranges, object.read = 0, 0
		if err := r.ReadAt(t.Context(), make([]byte, c.length), int64(c.offset)); err != nil {
			t.Fatal(err)
		}
		if object.ranges != c.ranges || object.read > c.most {
			t.Errorf("%d bytes from %d: %d readings of %d bytes, want %d of at most %d", c.length, c.offset, object.ranges, object.read, c.ranges, c.most)
		}
	}
}

const chunk = 64<<10 + 16

// A reading costs one request, for the chunks that it needs, and none if they are there.
func TestOpenAtReadsLittle(t *testing.T) {
	readsLittle(t, seal.ShortTail, 2,
		reading{10<<20 - 40_000, 40_000, 0, 0},     // the end, which opening has read
		reading{5 << 20, 4 << 10, 1, chunk},        // inside a chunk
		reading{5<<20 + 8<<10, 4 << 10, 0, 0},      // the same chunk again
		reading{6<<20 - 100, 200, 1, 2 * chunk},    // across two
		reading{1<<20 + 1, 4 << 20, 1, 65 * chunk}, // many at once
		reading{3 << 20, 4 << 10, 1, chunk},        // which are not kept
	)
}

// Of a table the index costs no request after the opening, and most of the tail goes once it was read.
func TestOpenAtReadsATableLittle(t *testing.T) {
	readsLittle(t, seal.TableTail, 10,
		reading{10<<20 - 40_000, 40_000, 0, 0},
		reading{10<<20 - 576<<10, 512 << 10, 0, 0},
		reading{10<<20 - 192<<10, 4 << 10, 1, chunk},
		reading{10<<20 - 40_000, 40_000, 0, 0}, // the end stays
	)
}

// Of a table whose beginning is wanted that costs no request after the opening.
func TestOpenAtReadsAStartLittle(t *testing.T) {
	readsLittle(t, seal.TableStart, 3,
		reading{10<<20 - 40_000, 40_000, 0, 0},
		reading{0, 32 << 10, 0, 0},
		reading{32 << 10, 32 << 10, 0, 0},
	)
}

// Headers are as long as there are keys.
func TestOpenAtWithManyKeys(t *testing.T) {
	var recipients []string
	var last *seal.Opener
	for range 12 {
		o, r := key(t, true)
		recipients, last = append(recipients, r), o
	}
	s, err := seal.NewSealer(recipients)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		plain := noise(size)
		object := &stored{bytes: sealed(t, s, plain)}
		r, err := last.OpenAt(t.Context(), object.readRange, int64(len(object.bytes)), s.Keys(), seal.ShortTail)
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
			continue
		}
		got := make([]byte, size)
		if err := r.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// readAll reads an object at any place, a part after the other, and gives what could be
// read before the first error.
func readAll(t testing.TB, o *seal.Opener, object *stored, size int64, keys []string) (got []byte, err error) {
	r, err := o.OpenAt(t.Context(), object.readRange, size, keys, seal.ShortTail)
	if err != nil {
		return nil, err
	}
	for int64(len(got)) < r.Size() {
		part := make([]byte, min(50_000, r.Size()-int64(len(got))))
		if err := r.ReadAt(t.Context(), part, int64(len(got))); err != nil {
			return got, err
		}
		got = append(got, part...)
	}
	return got, nil
}

// Any change is noticed, and nothing is given out that was not sealed.
func TestOpenAtRefusesDamage(t *testing.T) {
	s, o := pair(t)
	plain := noise(300_000)
	whole := sealed(t, s, plain)
	rapid.Check(t, func(rt *rapid.T) {
		harmed := bytes.Clone(whole)
		switch how := rapid.SampledFrom([]string{"flip", "cut", "extend", "swap chunks", "lose a chunk"}).Draw(rt, "how"); how {
		case "flip":
			at := rapid.OneOf(rapid.IntRange(0, len(harmed)-1), rapid.IntRange(0, 600)).Draw(rt, "at")
			harmed[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "mask"))
		case "cut":
			harmed = harmed[:rapid.IntRange(0, len(harmed)-1).Draw(rt, "at")]
		case "extend":
			harmed = append(harmed, rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(rt, "more")...)
		default:
			const chunk = 64<<10 + 16
			begin := len(whole) - len(plain) - 5*16 + rapid.IntRange(0, 2).Draw(rt, "chunk")*chunk
			if how == "swap chunks" {
				copy(harmed[begin:], whole[begin+chunk:begin+2*chunk])
				copy(harmed[begin+chunk:], whole[begin:begin+chunk])
			} else {
				harmed = append(harmed[:begin:begin], whole[begin+chunk:]...)
			}
		}
		got, err := readAll(t, o, &stored{bytes: harmed}, int64(len(harmed)), s.Keys())
		if !errors.Is(err, seal.ErrDamaged) {
			rt.Fatalf("%d bytes were read, then: %v", len(got), err)
		}
		if !bytes.Equal(got, plain[:len(got)]) {
			rt.Fatal("bytes were given out that were not sealed")
		}
	})
}

// An object that is shorter than it is said to be, or out of reach, is no damage that
// was seen; the error of reading it comes out.
func TestOpenAtTellsErrorsOfReading(t *testing.T) {
	s, o := pair(t)
	whole := sealed(t, s, noise(300_000))
	if _, err := readAll(t, o, &stored{bytes: whole[:1000]}, int64(len(whole)), s.Keys()); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, seal.ErrDamaged) {
		t.Errorf("a short object: %v", err)
	}
	object := &stored{bytes: whole}
	r, err := o.OpenAt(t.Context(), object.readRange, int64(len(whole)), s.Keys(), seal.ShortTail)
	if err != nil {
		t.Fatal(err)
	}
	object.err = errors.New("out of reach")
	if err := r.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, object.err) || errors.Is(err, seal.ErrDamaged) {
		t.Errorf("out of reach: %v", err)
	}
	object.err = nil
	if err := r.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
		t.Errorf("within reach again: %v", err)
	}
}

func TestOpenAtNeedsAKeyThatFits(t *testing.T) {
	s, _ := pair(t)
	_, stranger := pair(t)
	object := &stored{bytes: sealed(t, s, noise(1000))}
	_, err := stranger.OpenAt(t.Context(), object.readRange, int64(len(object.bytes)), s.Keys(), seal.ShortTail)
	if events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), s.Keys()[0]) || object.ranges > 0 {
		t.Errorf("%v, after %d readings", err, object.ranges)
	}
	// One that says it is sealed for a key, and is not.
	if _, err := stranger.OpenAt(t.Context(), object.readRange, int64(len(object.bytes)), stranger.Keys(), seal.ShortTail); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("sealed for somebody else: %v", err)
	}
}
