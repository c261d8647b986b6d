package pipeline_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/replicator/divergence"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// another is a node of another deployment on a region's cluster, with the same names of
// streams and topics of its own.
func (r *region) another(names ...events.Region) *region {
	o := &region{
		w: r.w, disk: vfs.NewCrashableMem(), bucket: objstore.NewMemory("another-" + r.cfg.Region.String()), opts: r.opts, log: &logBuffer{},
		dir: r.dir, port: r.port, kafka: r.kafka,
	}
	o.cfg = r.w.config(names, slices.Index(names, r.cfg.Region))
	o.cfg.Group = "another"
	for name, s := range o.cfg.Streams {
		s.Topic += "-of-another"
		o.cfg.Streams[name] = s
	}
	return o
}

// meetsAnother waits until a node says that another deployment is in its way, or does not.
func (r *region) meetsAnother(want bool) {
	r.w.Helper()
	r.await("told of another deployment", func() error {
		said := slices.ContainsFunc(r.status().Problems, func(p string) bool {
			return strings.Contains(p, "another deployment") && strings.Contains(p, "(deployment)")
		})
		if said != want {
			return errors.New(strings.Join(r.status().Problems, "\n"))
		}
		return nil
	})
}

// Two deployments that use the same clusters and the same names for their streams never
// find a divergence in each other's attestations. Without a name they say that they are in each
// other's way; with one they are not.
func TestDeploymentsOnOneCluster(t *testing.T) {
	long(t)
	names := []events.Region{us, eu}
	two(t, func(a, b *region) {
		c, d := a.another(names...), b.another(names...)
		all := []*region{a, b, c, d}
		defer func() {
			for _, r := range []*region{c, d} {
				r.stop()
			}
		}()
		write := func(round string) {
			a.put("k"+round, "of the one")
			for range 3 {
				c.put("k"+round, "of the other")
			}
			b.has("k"+round, "of the one")
			d.has("k"+round, "of the other")
		}
		for _, r := range all {
			r.start()
		}
		write("1")
		for _, r := range all {
			r.meetsAnother(true)
			for _, f := range r.check() {
				if f.Result == divergence.Diverged {
					t.Error(f.Describe(r.cfg.Region))
				}
			}
			r.stop()
		}
		c.cfg.Deployment, d.cfg.Deployment = "another", "another"
		for _, r := range all {
			r.start()
		}
		write("2")
		for _, r := range all {
			r.consistent()
			r.meetsAnother(false)
			for _, f := range r.check() {
				if f.Result == divergence.Diverged {
					t.Error(f.Describe(r.cfg.Region))
				}
			}
		}
	})
	c := config.Default()
	c.Deployment = "prod"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "evenkeel-prod") {
		t.Errorf("a named deployment in the default group: %v", err)
	}
}
