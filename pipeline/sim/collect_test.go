package sim_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/sim"
)

const keptFor = 5 * time.Second

// Keys are written in one region and deleted in another, and written again, while what is left of them is buried and
// collected as soon as may be; meanwhile a region loses power, or its disk as well and is restored from a backup that is far older.
// What all see is what the logs mean without any of that; what is deleted everywhere is never seen again, and what is
// there is always seen, by whoever knows that much; and once everything is deleted nothing is left anywhere.
func TestSimCollect(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		// Nobody collects what those with backups may have to restore, but others than the victim have none.
		names := []events.Region{"us-east-1", "us-west-1", "eu-central-1"}
		at := int(seed % uint64(len(names)))
		w := sim.NewShaped(t, seed, sim.Shape{Nodes: 1, AllRules: true, Tombstones: keptFor, BackupsOf: names[at]}, names...)
		defer w.Close()
		victim := w.Regions[at]
		audit := newAudit(t, w, victim)
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
		defer stop()
		var others sync.WaitGroup
		others.Go(func() { audit.run(ctx) })
		loseOne(ctx, t, w, victim, audit, seed, &others)
		others.Wait()

		time.Sleep(2 * time.Minute) // all that can go is gone
		w.Settle()
		w.Check()
		if n := total(w, "evenkeel_fold_buried_total"); n < 10 {
			t.Errorf("only %v slices were buried in five minutes", n)
		}
		if audit.looks < 100 {
			t.Errorf("only %d looks at keys", audit.looks)
		}
		nothingIsLeft(t, w, victim, audit)
	})
}

// loseOne has all regions write, and one of them lose what it has while the others go on.
func loseOne(ctx context.Context, t *testing.T, w *sim.World, victim *sim.Region, audit *audit, seed uint64, others *sync.WaitGroup) {
	t.Helper()
	darkFor := time.Duration(1+w.Rand.IntN(60_000)) * time.Millisecond
	before, end := context.WithTimeout(ctx, time.Duration(90+w.Rand.IntN(120))*time.Second)
	defer end()
	var own sync.WaitGroup
	for i, r := range w.Regions {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		if r == victim {
			own.Go(func() { comeAndGo(before, w, r, rng) })
			continue
		}
		others.Go(func() { comeAndGo(ctx, w, r, rng) })
	}
	time.Sleep(time.Duration(1+w.Rand.IntN(59)) * time.Second)
	if _, err := victim.Node().CreateBackup(t.Context()); err != nil {
		t.Fatal(err)
	}
	own.Wait()
	audit.apart(func() {
		losesDisk := w.Rand.IntN(2) == 0
		if losesDisk {
			victim.DiskLoss()
		} else {
			victim.PowerLoss()
		}
		time.Sleep(darkFor)
		if losesDisk {
			victim.Restore()
		}
		victim.Start()
	})
	others.Go(func() { comeAndGo(ctx, w, victim, rand.New(rand.NewPCG(seed, 9))) })
}

// nothingIsLeft deletes everything, wherever, and waits until it is collected; none of it is seen meanwhile. The
// victim, too, has no backups any more that it could be restored to.
func nothingIsLeft(t *testing.T, w *sim.World, victim *sim.Region, audit *audit) {
	t.Helper()
	victim.EndBackups()
	victim.Nodes[0].Stop()
	victim.Nodes[0].Start()
	victim.Nodes[0].AwaitReady()
	for _, stream := range w.Streams() {
		for _, key := range audit.keys {
			r := w.Regions[w.Rand.IntN(len(w.Regions))]
			if err := r.Nodes[0].Write(t.Context(), api.PutParams{Stream: stream, Key: api.Bytes(key)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Settle()
	clear(audit.there)
	audit.learn()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	audit.run(ctx)
	w.Settle()
	w.Check()
	for _, metric := range []string{"evenkeel_state_slices", "evenkeel_collect_tombstones"} {
		if n := total(w, metric); n != 0 {
			t.Errorf("everything is deleted, and %s is %v", metric, n)
		}
	}
}

// audit looks at keys of which it knows that they are there, or that they are not, from a cut on.
type audit struct {
	t      *testing.T
	world  *sim.World
	victim *sim.Region
	down   sync.RWMutex // held while the victim has no power
	keys   []string     // all that anybody writes
	there  map[string]string
	cut    events.Vector
	looks  int
}

// newAudit writes some keys in one region and deletes them in another, and some of them again in yet another.
func newAudit(t *testing.T, w *sim.World, victim *sim.Region) *audit {
	t.Helper()
	a := &audit{t: t, world: w, victim: victim, there: map[string]string{}}
	for i := range keysThatGo {
		a.keys = append(a.keys, string(keyThatGoes(i)))
	}
	write := func(region int, key, value string) {
		for _, stream := range w.Streams() {
			p := api.PutParams{Stream: stream, Key: api.Bytes(key)}
			if value != "" {
				p.Value = api.Bytes(value)
			}
			if err := w.Regions[region%len(w.Regions)].Nodes[0].Write(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
	}
	const audited = 12
	for i := range audited {
		a.keys = append(a.keys, fmt.Sprint("audited-", i))
		write(i, fmt.Sprint("audited-", i), `{"f":1}`)
	}
	w.Settle()
	for i := range audited {
		write(i+1+i%2, fmt.Sprint("audited-", i), "")
	}
	w.Settle()
	for i := 0; i < audited; i += 2 {
		key := fmt.Sprint("audited-", i)
		a.there[key] = fmt.Sprintf(`{"f":%d}`, 2+i)
		write(i/2, key, a.there[key])
	}
	w.Settle()
	a.learn()
	return a
}

// learn has everybody asked for no less than there is now.
func (a *audit) learn() {
	a.t.Helper()
	s, err := a.world.Regions[0].Node().Status(context.Background())
	if err != nil {
		a.t.Fatal(err)
	}
	a.cut = s.Vector()
}

// apart does what takes the victim away.
func (a *audit) apart(do func()) {
	a.down.Lock()
	defer a.down.Unlock()
	do()
}

// run looks at some key in some region every now and then, and at none that others write meanwhile.
func (a *audit) run(ctx context.Context) {
	audited := a.keys[keysThatGo:]
	for n := 0; ctx.Err() == nil; n++ {
		a.look(ctx, a.world.Regions[n%len(a.world.Regions)], audited[n%len(audited)])
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (a *audit) look(ctx context.Context, r *sim.Region, key string) {
	if r == a.victim {
		if !a.down.TryRLock() {
			return
		}
		defer a.down.RUnlock()
	}
	for _, stream := range a.world.Streams() {
		e, err := r.Node().Get(ctx, api.GetParams{Stream: stream, Key: api.Bytes(key), Freshness: api.Freshness{AtLeast: a.cut}})
		value, want := "", a.there[key]
		switch {
		case err == nil:
			value = string(e.Value)
		case events.KindOf(err) != events.KindNotFound:
			continue // it is behind, or has just been started
		}
		a.looks++
		if value != want {
			a.t.Errorf("%s: %s in stream %s is %q, want %q", r.Name, key, stream, value, want)
		}
	}
}

const keysThatGo = 30

func keyThatGoes(i int) api.Bytes { return fmt.Appendf(nil, "grave-%d", i) }

// comeAndGo writes and deletes keys, seldom enough that what is deleted is left alone for a while. It counts nothing: what
// a delete of another region has taken from a counter need not be reset once it is buried, and is not, so that
// the logs mean something else to whoever passes over burials.
func comeAndGo(ctx context.Context, w *sim.World, r *sim.Region, rng *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		p := api.PutParams{Stream: w.Streams()[rng.IntN(len(w.Streams()))], Key: keyThatGoes(rng.IntN(keysThatGo))}
		what := rng.IntN(5)
		switch {
		case what == 0 && p.Stream == "usage":
			p.Type, p.Value = events.TypePatch, fmt.Appendf(nil, `{"set":{"g":%d},"unset":["f"],"add":{"s":["x"]},"remove":{"s":["x","y"]}}`, n)
		case what <= 2:
			p.Value = fmt.Appendf(nil, `{"f":"%s-%d"}`, r.Name, n)
		}
		// A write whose answer does not come is given up, as by a person.
		once, end := context.WithTimeout(ctx, 5*time.Second)
		_ = r.Nodes[0].Write(once, p)
		end()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(200+rng.IntN(1_500)) * time.Millisecond):
		}
	}
}

// total adds up a metric of all nodes.
func total(w *sim.World, metric string) (n float64) {
	for _, r := range w.Regions {
		for _, node := range r.Nodes {
			n += node.Metric(metric, nil)
		}
	}
	return n
}
