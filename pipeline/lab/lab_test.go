package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/lab/demo"
)

func up(t *testing.T, cfg lab.Config) *lab.Lab {
	t.Helper()
	l, err := lab.Up(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { down(t, l) })
	return l
}

func down(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Down(); err != nil {
		t.Error(err)
	}
}

func client(t *testing.T, l *lab.Lab, r events.Region) *api.Client {
	t.Helper()
	c, err := l.Client(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, c *api.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

// awaitValue waits until a region sees a value.
func awaitValue(t *testing.T, c *api.Client, key, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		e, err := c.Get(ctx, api.GetParams{Stream: "session", Key: []byte(key)})
		if err == nil && string(e.Value) == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: key %s is %v (%v), want %q", c.Server(), key, e, err, want)
		case <-tick.C:
		}
	}
}

func TestDemo(t *testing.T) {
	l := up(t, lab.Config{Dir: t.TempDir()})
	d := &demo.Demo{Lab: l, Out: t.Output(), Dir: t.TempDir()}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLabComesBack(t *testing.T) {
	dir := t.TempDir()
	l := up(t, lab.Config{Dir: dir})
	addresses := fmt.Sprint(l.Addresses())
	for i, r := range l.Regions() {
		put(t, client(t, l, r), fmt.Sprintf("key-%d", i), r.String())
	}
	down(t, l)
	for _, a := range l.Addresses() {
		for _, address := range []string{strings.TrimPrefix(a.API, "http://"), a.Kafka} {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Errorf("%s: port is not free after the lab: %v", a.Region, err)
				continue
			}
			listener.Close()
		}
	}

	l = up(t, lab.Config{Dir: dir})
	if again := fmt.Sprint(l.Addresses()); again != addresses {
		t.Errorf("addresses were %s, are %s", addresses, again)
	}
	for _, r := range l.Regions() {
		for i, origin := range l.Regions() {
			awaitValue(t, client(t, l, r), fmt.Sprintf("key-%d", i), origin.String())
		}
	}
}

func TestOneProcessALab(t *testing.T) {
	dir := t.TempDir()
	up(t, lab.Config{Dir: dir, Regions: []events.Region{"a"}})
	_, err := lab.Up(t.Context(), lab.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), dir) {
		t.Errorf("second lab in the same directory: %v", err)
	}
}

func TestWishesThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	down(t, up(t, lab.Config{Dir: dir, Regions: []events.Region{"a", "b"}, Partitions: 2}))
	for name, cfg := range map[string]lab.Config{
		"other regions":     {Dir: dir, Regions: []events.Region{"a", "c"}},
		"more regions":      {Dir: dir, Regions: []events.Region{"a", "b", "c"}},
		"another partition": {Dir: dir, Partitions: 3},
	} {
		if _, err := lab.Up(t.Context(), cfg, slog.New(slog.DiscardHandler)); events.KindOf(err) != events.KindRefused {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, regions := range map[string][]events.Region{"malformed": {"A"}, "twice": {"a", "a"}} {
		cfg := lab.Config{Dir: t.TempDir(), Regions: regions}
		if _, err := lab.Up(t.Context(), cfg, slog.New(slog.DiscardHandler)); events.KindOf(err) != events.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPortInUse(t *testing.T) {
	// One lab after the other wants the port at another place of its row, so
	// the whole row around it has to be free: below the ports of outgoing
	// connections it stays so.
	taken := listenAmongFree(t)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for offset, what := range map[int]string{0: "api of a", 1: "embedded Kafka", lab.ControlOffset: "control page", lab.ControlOffset + 1: "S3"} {
		cfg := lab.Config{Dir: t.TempDir(), Regions: []events.Region{"a"}, BasePort: port - offset}
		l, err := lab.Up(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			down(t, l)
			t.Errorf("%s: started on a port in use", what)
			continue
		}
		if !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), fmt.Sprint(port)) {
			t.Errorf("%s at port %d: the error names not both: %v", what, port, err)
		}
	}
}

// listenAmongFree listens on a port with free ones for 100 places around it.
func listenAmongFree(t *testing.T) net.Listener {
	t.Helper()
	for port := 12_000; port < 15_000; port += 200 {
		var row []net.Listener
		for p := port - 95; p <= port+95; p++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err == nil {
				row = append(row, l)
			}
		}
		whole := len(row) == 191
		for i, l := range row {
			if !whole || i != 95 {
				l.Close()
			}
		}
		if whole {
			return row[95]
		}
	}
	t.Fatal("no row of free ports")
	return nil
}

func TestRegionAlone(t *testing.T) {
	l := up(t, lab.Config{Dir: t.TempDir()})
	const lone = events.Region("us-west-1")
	if err := l.WipeRegion(lone); events.KindOf(err) != events.KindRefused {
		t.Errorf("wipe of a running region: %v", err)
	}
	if err := l.StopRegion("nowhere"); events.KindOf(err) != events.KindNotFound {
		t.Errorf("stop of a region that is not there: %v", err)
	}
	stopped := client(t, l, lone)
	put(t, stopped, "before", "1")
	east, central := client(t, l, "us-east-1"), client(t, l, "eu-central-1")
	awaitValue(t, east, "before", "1")
	if err := errors.Join(l.StopRegion(lone), l.StopRegion(lone)); err != nil {
		t.Fatal(err)
	}
	if _, err := stopped.Status(t.Context()); events.KindOf(err) != events.KindNotReady {
		t.Errorf("status of a stopped region: %v", err)
	}
	put(t, east, "during", "2")
	awaitValue(t, central, "during", "2") // the others go on
	lag, err := east.Lag(t.Context())
	if err != nil || lag.Behind() != "unknown" {
		t.Errorf("lag behind a region that is down: %v, %v", lag, err)
	}
	if err := errors.Join(l.WipeRegion(lone), l.StartRegion(t.Context(), lone)); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"before": "1", "during": "2"} {
		awaitValue(t, stopped, key, value)
	}
	put(t, stopped, "after", "3")
	for _, c := range []*api.Client{east, central} {
		awaitValue(t, c, "after", "3")
	}
}

func TestControlPage(t *testing.T) {
	l := up(t, lab.Config{Dir: t.TempDir(), Regions: []events.Region{"a", "b"}})
	call := func(method, path string) (json.RawMessage, error) {
		return lab.Control(t.Context(), l.Control(), method, path)
	}
	states := func() string {
		text, err := call(http.MethodGet, "/regions")
		if err != nil {
			t.Fatal(err)
		}
		var rows []lab.Address
		if err := json.Unmarshal(text, &rows); err != nil {
			t.Fatal(err)
		}
		var states []string
		for _, r := range rows {
			states = append(states, r.Region.String()+" "+r.State)
		}
		return strings.Join(states, ", ")
	}
	if got := states(); got != "a running, b running" {
		t.Error(got)
	}
	if _, err := client(t, l, "b").CreateBackup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"stop", "wipe", "restore", "start"} {
		if _, err := call(http.MethodPost, "/regions/b/"+verb); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if want := "a running, b stopped"; verb != "start" && states() != want {
			t.Errorf("after %s: %s", verb, states())
		}
	}
	if got := states(); got != "a running, b running" {
		t.Error(got)
	}
	if _, err := call(http.MethodPost, "/regions/c/stop"); events.KindOf(err) != events.KindNotFound {
		t.Errorf("a region that is not there: %v", err)
	}
	if _, err := call(http.MethodPost, "/regions/b/explode"); err == nil {
		t.Error("a verb that is not there: no error")
	}
	if _, err := lab.Control(t.Context(), "http://127.0.0.1:1", http.MethodGet, "/regions"); events.KindOf(err) != events.KindNotReady {
		t.Errorf("no lab there: %v", err)
	}
}
