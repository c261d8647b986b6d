package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// key makes a key or ends the test.
func key(t testing.TB, postQuantum bool) (opener *seal.Opener, recipient string) {
	t.Helper()
	file, recipient, err := seal.Generate(postQuantum, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if opener, err = seal.NewOpener("the file", file); err != nil {
		t.Fatal(err)
	}
	return opener, recipient
}

func sealed(t testing.TB, s *seal.Sealer, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := s.Writer(&b)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(o *seal.Opener, sealed []byte, keys []string) ([]byte, error) {
	r, err := o.Open(bytes.NewReader(sealed), keys)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// Either key opens, in every kind of key; a third does not.
func TestEitherKeyOpens(t *testing.T) {
	for _, postQuantum := range []bool{false, true} {
		operating, a := key(t, postQuantum)
		recovery, b := key(t, postQuantum)
		stranger, _ := key(t, postQuantum)
		if got := operating.Recipients(); len(got) != 1 || got[0] != a || operating.Keys()[0] != seal.KeyID(a) {
			t.Errorf("recipients %q, made was %s", got, a)
		}
		s, err := seal.NewSealer([]string{a, b})
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300_000} {
			plain := bytes.Repeat([]byte{7}, size)
			box := sealed(t, s, plain)
			for _, o := range []*seal.Opener{operating, recovery} {
				if got, err := open(o, box, s.Keys()); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%d bytes, post-quantum %t: %d bytes, %v", size, postQuantum, len(got), err)
				}
			}
			if size > 100 && bytes.Contains(box, plain[:100]) {
				t.Error("the plaintext is in the sealed bytes")
			}
			_, err := open(stranger, box, s.Keys())
			if events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), s.Keys()[0]) || !strings.Contains(err.Error(), stranger.Keys()[0]) {
				t.Errorf("a stranger's key: %v", err)
			}
			// Whoever lies about the ids does not get any further.
			if _, err := open(stranger, box, stranger.Keys()); !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("a stranger's key under false ids: %v", err)
			}
			var none *seal.Opener
			if _, err := open(none, box, s.Keys()); events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), "--identity") {
				t.Errorf("no key: %v", err)
			}
		}
	}
}

// Whoever opens hears which of the keys it was, also where several are at hand, and of none if none fits.
func TestTellingWhichKeyOpened(t *testing.T) {
	for _, postQuantum := range []bool{false, true} {
		operatingFile, a, err := seal.Generate(postQuantum, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		recoveryFile, b, err := seal.Generate(postQuantum, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		strangerFile, _, err := seal.Generate(postQuantum, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		s, err := seal.NewSealer([]string{a, b})
		if err != nil {
			t.Fatal(err)
		}
		plain := bytes.Repeat([]byte{7}, 200_000)
		box := sealed(t, s, plain)
		for name, c := range map[string]struct {
			file string
			want string
		}{
			"operating": {operatingFile, seal.KeyID(a)},
			"recovery":  {recoveryFile, seal.KeyID(b)},
			"several":   {strangerFile + recoveryFile, seal.KeyID(b)},
		} {
			opener, err := seal.NewOpener("test", c.file)
			if err != nil {
				t.Fatal(err)
			}
			var told []string
			telling := opener.Telling(func(key string) { told = append(told, key) })
			if got, err := open(telling, box, s.Keys()); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s: %d bytes, %v", name, len(got), err)
			}
			if !slices.Equal(told, []string{c.want}) {
				t.Errorf("%s: told %q, want %q", name, told, c.want)
			}
			object := &stored{bytes: box}
			if _, err := telling.OpenAt(t.Context(), object.readRange, int64(len(box)), s.Keys(), seal.ShortTail); err != nil || told[len(told)-1] != c.want || len(told) < 2 {
				t.Errorf("%s: read at any place: told %q, %v", name, told, err)
			}
			if !slices.Equal(telling.Keys(), opener.Keys()) || !slices.Equal(telling.Recipients(), opener.Recipients()) {
				t.Errorf("%s: %q, %q", name, telling.Keys(), telling.Recipients())
			}
		}
		stranger, err := seal.NewOpener("test", strangerFile)
		if err != nil {
			t.Fatal(err)
		}
		telling := stranger.Telling(func(key string) { t.Errorf("told %s, and nothing was opened", key) })
		if _, err := open(telling, box, telling.Keys()); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("a stranger's key under false ids: %v", err)
		}
	}
	var none *seal.Opener
	if got, err := open(none.Telling(nil), []byte("plain"), nil); string(got) != "plain" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNoneLeavesEverythingAsItIs(t *testing.T) {
	box := sealed(t, seal.None(), []byte("plain"))
	var none *seal.Opener
	if got, err := open(none, box, seal.None().Keys()); string(got) != "plain" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Any byte changed, any end lost, anything added: damage, and nothing that was not
// sealed comes out before it is found.
func TestDamage(t *testing.T) {
	opener, a := key(t, false)
	_, b := key(t, false)
	s, err := seal.NewSealer([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("0123456789abcdef"), 9_000) // three chunks
	box := sealed(t, s, plain)
	rapid.Check(t, func(t *rapid.T) {
		damaged := bytes.Clone(box)
		at := rapid.IntRange(0, len(box)-1).Draw(t, "at")
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			damaged[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "mask"))
		case 1:
			damaged = damaged[:at]
		case 2:
			damaged = append(damaged, rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "more")...)
		}
		r, err := opener.Open(bytes.NewReader(damaged), s.Keys())
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		if !errors.Is(err, seal.ErrDamaged) || !bytes.HasPrefix(plain, got) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
}

// A connection that breaks is no damage.
func TestBrokenReadingIsNoDamage(t *testing.T) {
	opener, a := key(t, false)
	_, b := key(t, false)
	s, err := seal.NewSealer([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	box := sealed(t, s, make([]byte, 200_000))
	broken := errors.New("connection lost")
	for _, at := range []int{0, 10, 150, 70_000, len(box)} {
		r, err := opener.Open(io.MultiReader(bytes.NewReader(box[:at]), iotest.ErrReader(broken)), s.Keys())
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, broken) || errors.Is(err, seal.ErrDamaged) {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

func TestSealerRefuses(t *testing.T) {
	file, a, _ := seal.Generate(false, time.Unix(1, 0))
	_, b := key(t, false)
	_, quantum := key(t, true)
	secret := file[strings.Index(file, "AGE-SECRET"):]
	for name, test := range map[string]struct {
		recipients []string
		says       string
	}{
		"none":           {nil, "0 recipients"},
		"one":            {[]string{a}, "recovery key"},
		"the same twice": {[]string{a, a}, "recipient 2 stands there twice"},
		"a secret":       {[]string{a, strings.TrimSpace(secret)}, "recipient 2: this is a secret"},
		"nonsense":       {[]string{"ssh-ed25519 AAAA", b}, "recipient 1: want age1"},
		"empty":          {[]string{a, ""}, "recipient 2"},
		"typing error":   {[]string{a, b[:len(b)-1] + "b1"}, "recipient 2"},
		"two kinds":      {[]string{a, quantum}, "post-quantum"},
	} {
		s, err := seal.NewSealer(test.recipients)
		if s != nil || events.KindOf(err) != events.KindInvalid || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Contains(err.Error(), "SECRET-KEY-1") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

// No error and no printing shows an identity, not even a damaged one.
func TestIdentitiesStaySecret(t *testing.T) {
	file, _, _ := seal.Generate(false, time.Unix(1, 0))
	secret := strings.TrimSpace(file[strings.Index(file, "AGE-SECRET"):])
	for _, text := range []string{
		"", "# only a comment\n", secret[:40], secret + "x", strings.ToLower(secret), "AGE-SECRET-KEY-PQ-1" + secret[len("AGE-SECRET-KEY-1"):],
		"x" + secret, secret + " " + secret,
	} {
		o, err := seal.NewOpener("the file", text)
		if o != nil || events.KindOf(err) != events.KindInvalid || !strings.Contains(err.Error(), "the file") {
			t.Errorf("%q: %v, %v", text, o, err)
			continue
		}
		if strings.Contains(err.Error(), secret[16:24]) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	o, err := seal.NewOpener("the file", file+"\r\n"+file)
	if err != nil || len(o.Keys()) != 2 {
		t.Fatalf("%v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, o); strings.Contains(text, secret[16:30]) {
			t.Errorf("%s shows it: %s", verb, text)
		}
	}
}
