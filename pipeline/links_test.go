package pipeline_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// logRecord is a record of a log as a test writes it.
func logRecord(topic string, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: 1, Key: []byte("k"), Value: []byte(value)}
}

// show asks a node for its one link.
func (r *region) show(p api.ShowLinkParams) *api.LinkDetails {
	r.w.Helper()
	p.Origin = eu.String()
	d, err := r.ShowLink(r.w.Context(), p)
	if err != nil {
		r.w.Fatalf("show: %v", err)
	}
	return d
}

// partition asks for partition 1 of a topic.
func (r *region) partition(topic string) replicator.PartitionStatus {
	r.w.Helper()
	return r.show(api.ShowLinkParams{Topic: topic, Partition: new(int32(1))}).Partitions[0]
}

// awaitPartition waits until partition 1 of a topic is as wanted.
func (r *region) awaitPartition(topic, what string, is func(replicator.PartitionStatus) bool) {
	r.w.Helper()
	r.await(what, func() error {
		d, err := r.ShowLink(r.w.Context(), api.ShowLinkParams{Origin: eu.String(), Topic: topic, Partition: new(int32(1))})
		if err == nil && !is(d.Partitions[0]) {
			err = fmt.Errorf("%+v", d.Partitions[0])
		}
		return err
	})
}

func (r *region) inState(topic string, want replicator.State) {
	r.w.Helper()
	r.awaitPartition(topic, string(want), func(p replicator.PartitionStatus) bool { return p.State == want })
}

func (r *region) mirrorEnd(topic string, want int64) {
	r.w.Helper()
	r.awaitPartition(topic, "mirrored", func(p replicator.PartitionStatus) bool { return p.MirrorEnd != nil && *p.MirrorEnd == want })
}

func TestLinksOfNobody(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		list, err := r.ListLinks(r.w.Context())
		if err != nil || list.Links == nil || len(list.Links) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		_, err = r.ShowLink(r.w.Context(), api.ShowLinkParams{Origin: eu.String()})
		wantKind(t, err, events.KindNotFound, "no other regions")
	})
}

// What is not there, or makes no sense, is refused with a word about what is.
func TestLinksRefuse(t *testing.T) {
	two(t, func(a, b *region) {
		b.start()
		a.start()
		a.behind("0")
		ctx, from := a.w.Context(), eu.String()
		pause := func(what string) error {
			_, err := a.PauseLink(ctx, api.PauseLinkParams{Origin: from, What: what})
			return err
		}
		show := func(p api.ShowLinkParams) error {
			_, err := a.ShowLink(ctx, p)
			return err
		}
		resume := func(topic string, partition int32, choice string, dry bool) error {
			_, err := a.ResumeLink(ctx, api.ResumeLinkParams{Origin: from, Topic: topic, Partition: partition, From: choice, DryRun: dry})
			return err
		}
		verify := func(topic string, partition int32, at int64) error {
			_, err := a.VerifyLink(ctx, api.VerifyLinkParams{Origin: from, Topic: topic, Partition: partition, From: at})
			return err
		}
		for name, c := range map[string]struct {
			err   error
			kind  events.Kind
			parts []string
		}{
			"no such link":        {show(api.ShowLinkParams{Origin: us.String()}), events.KindNotFound, []string{`"us-east-1"`, "from eu-central-1"}},
			"another incarnation": {show(api.ShowLinkParams{Origin: "eu-central-1_2"}), events.KindNotFound, []string{"from eu-central-1"}},
			"no such topic":       {show(api.ShowLinkParams{Origin: from, Topic: "orders"}), events.KindNotFound, []string{`"orders"`, "config, evenkeel.attestations, session"}},
			"no such partition":   {show(api.ShowLinkParams{Origin: from, Topic: "session", Partition: new(int32(7))}), events.KindNotFound, []string{"no partition 7"}},
			"partition of what":   {show(api.ShowLinkParams{Origin: from, Partition: new(int32(7))}), events.KindInvalid, []string{"which topic"}},
			"pause of what":       {pause("sessions"), events.KindInvalid, []string{`"sessions"`, "topic/TOPIC"}},
			"pause of no topic":   {pause("topic/orders"), events.KindNotFound, []string{`"orders"`}},
			"pause of nothing":    {pause("topic/"), events.KindInvalid, nil},
			"pause of a word":     {pause("topic/session/all"), events.KindInvalid, nil},
			"pause of all":        {pause("topic/session/-1"), events.KindInvalid, nil},
			"pause beyond":        {pause("topic/session/3"), events.KindNotFound, nil},
			"choice of nothing":   {resume("session", replicator.All, "retry", false), events.KindRefused, []string{"nothing of topic session"}},
			"dry choice":          {resume("session", 1, "latest", true), events.KindRefused, []string{"nothing of topic session"}},
			"choice":              {resume("session", 1, "maybe", true), events.KindInvalid, []string{`"maybe"`, "earliest"}},
			"negative choice":     {resume("session", 1, "-5", false), events.KindInvalid, nil},
			"verify nothing":      {verify("orders", 0, 0), events.KindNotFound, nil},
			"verify all":          {verify("session", replicator.All, 0), events.KindInvalid, nil},
			"verify before":       {verify("session", 0, -1), events.KindInvalid, nil},
		} {
			if events.KindOf(c.err) != c.kind {
				t.Errorf("%s: %v is of kind %s, want %s", name, c.err, events.KindOf(c.err), c.kind)
				continue
			}
			for _, part := range c.parts {
				if !strings.Contains(c.err.Error(), part) {
					t.Errorf("%s: %q does not say %q", name, c.err, part)
				}
			}
		}
		for _, p := range a.show(api.ShowLinkParams{}).Partitions {
			if p.State != replicator.Mirroring {
				t.Errorf("topic %s, partition %d is %s", p.Topic, p.Partition, p.State)
			}
		}
	})
}

// Pauses of different width do not end each other, and hold over a restart.
func TestPauses(t *testing.T) {
	two(t, func(a, b *region) {
		b.start()
		a.start()
		a.behind("0")
		set := func(what string, paused bool) *api.LinkPaused {
			do := a.PauseLink
			if !paused {
				do = a.UnpauseLink
			}
			result, err := do(a.w.Context(), api.PauseLinkParams{Origin: eu.String(), What: what})
			if err != nil {
				a.w.Fatalf("%s: %v", what, err)
			}
			return result
		}
		if got := set("topic/session", true); len(got.Partitions) != partitions || len(got.What) != partitions || got.What[1] != "topic/session/1" || !got.Paused {
			t.Errorf("%+v", got)
		}
		if got := set("", true); len(got.Partitions) != 2*partitions+1 || got.What[0] != "link" {
			t.Errorf("%+v", got)
		}
		if got := set("groups", true); len(got.Partitions) != 0 || got.What[0] != "groups" {
			t.Errorf("%+v", got)
		}
		b.produce(logRecord("session", "v"), logRecord("config", "v"))
		a.inState("config", replicator.Paused)
		if got := set("link", false); len(got.Partitions) != partitions || got.Paused {
			t.Errorf("still paused: %+v", got)
		}
		a.stop()
		a.start()
		a.mirrorEnd("config", 1)
		if p := a.partition("session"); p.State != replicator.Paused || a.end("eu-central-1.session", 1) != 0 {
			t.Errorf("%+v", p)
		}
		list, err := a.ListLinks(a.w.Context())
		if err != nil {
			a.w.Fatal(err)
		}
		if l := list.Links[0]; l.Partitions[replicator.Paused] != partitions || l.Partitions[replicator.Mirroring] != partitions+1 ||
			l.Unknown != partitions || l.Lag.Records != nil || l.Lag.Seconds != nil {
			t.Errorf("%+v", l)
		}
		if got := set("topic/session", false); len(got.Partitions) != 0 {
			t.Errorf("still paused: %+v", got)
		}
		a.mirrorEnd("session", 1)
		a.behind("0")
	})
}

// Records that expired before they were mirrored: what a choice would do is shown
// first, and then done.
func TestResumeAfterLoss(t *testing.T) {
	for from, c := range map[string]struct {
		goesOn, skipped int64 // of the dry run
		mirrored        []string
	}{
		"earliest": {4, 2, []string{"0", "1", "4", "5", "6"}},
		"5":        {5, 3, []string{"0", "1", "5", "6"}},
		"latest":   {6, 4, []string{"0", "1", "6"}},
	} {
		t.Run(from, func(t *testing.T) {
			two(t, func(a, b *region) {
				b.start()
				a.start()
				b.produce(logRecord("session", "0"), logRecord("session", "1"))
				a.mirrorEnd("session", 2)
				ctx := a.w.Context()
				if _, err := a.PauseLink(ctx, api.PauseLinkParams{Origin: eu.String(), What: "topic/session/1"}); err != nil {
					a.w.Fatal(err)
				}
				for _, v := range []string{"2", "3", "4", "5"} {
					b.produce(logRecord("session", v))
				}
				b.deleteBefore("session", 4)
				if _, err := a.UnpauseLink(ctx, api.PauseLinkParams{Origin: eu.String(), What: "topic/session"}); err != nil {
					a.w.Fatal(err)
				}
				a.inState("session", replicator.LostRecords)
				plan := api.ResumeLinkParams{Origin: eu.String(), Topic: "session", Partition: replicator.All, From: from, DryRun: true}
				got, err := a.ResumeLink(ctx, plan)
				if err != nil || len(got.Partitions) != 1 {
					a.w.Fatalf("%+v, %v", got, err)
				}
				if p := got.Partitions[0]; p.Partition != 1 || *p.Next != 2 || *p.SourceStart != 4 || *p.SourceEnd != 6 || *p.GoesOn != c.goesOn ||
					*p.Skipped != c.skipped || p.Stop.From != 2 || p.Stop.To != 3 || p.Refused != "" {
					t.Errorf("%+v, stop %+v", p, p.Stop)
				}
				plan.From = "next"
				if got, err := a.ResumeLink(ctx, plan); err != nil || !strings.Contains(got.Partitions[0].Refused, "4 to 6") {
					t.Errorf("%+v, %v", got, err)
				}
				plan.From = "retry"
				if got, err := a.ResumeLink(ctx, plan); err != nil || got.Partitions[0].GoesOn != nil || got.Partitions[0].Refused != "" {
					t.Errorf("%+v, %v", got, err)
				}
				if p := a.partition("session"); p.State != replicator.LostRecords {
					t.Errorf("a dry run has changed %+v", p)
				}
				plan.From, plan.DryRun = from, false
				if got, err := a.ResumeLink(ctx, plan); err != nil || len(got.Partitions) != 1 || got.Partitions[0].Stop.State != replicator.LostRecords {
					a.w.Fatalf("%+v, %v", got, err)
				}
				b.produce(logRecord("session", "6"))
				a.mirrorEnd("session", int64(len(c.mirrored)))
				for i, r := range a.read("eu-central-1.session", 1) {
					if string(r.Value) != c.mirrored[i] {
						t.Errorf("offset %d of the mirror holds %s, want %s", i, r.Value, c.mirrored[i])
					}
				}
			})
		})
	}
}

// deleteBefore lets the records of partition 1 before an offset expire.
func (r *region) deleteBefore(topic string, offset int64) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 1, offset, -1)
	got, err := kadm.NewClient(client).DeleteRecords(r.w.Context(), offsets)
	if err := errors.Join(err, got.Error()); err != nil {
		r.w.Fatalf("delete records of %s: %v", topic, err)
	}
}

// A record that somebody else wrote is found, at its offset.
func TestVerifyFindsADifference(t *testing.T) {
	two(t, func(a, b *region) {
		b.start()
		a.start()
		b.produce(logRecord("session", "0"), logRecord("session", "1"))
		a.mirrorEnd("session", 2)
		params := api.VerifyLinkParams{Origin: eu.String(), Topic: "session", Partition: 1}
		got, err := a.VerifyLink(a.w.Context(), params)
		if err != nil || got.Records != 2 || got.Next != 2 || got.End != 2 || got.Difference != nil || got.Expired != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		a.produce(logRecord("eu-central-1.session", "foreign"))
		b.produce(logRecord("session", "2"))
		a.inState("session", replicator.ForeignWriter)
		got, err = a.VerifyLink(a.w.Context(), params)
		if err != nil || got.Difference == nil || got.Difference.Mirror != 2 || got.Difference.Source != 2 || got.Records != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Topics that patterns include are mirrored besides the streams', but no mirrors,
// nothing that is excluded, and nothing of Kafka's and Evenkeel's own but what regions
// attest.
func TestIncludedTopics(t *testing.T) {
	two(t, func(a, b *region) {
		a.cfg.Links.Include, a.cfg.Links.Exclude = []string{"*"}, []string{"app-secret"}
		for _, topic := range []string{"app-1", "app-secret", "us-east-1.app-1", "evenkeel.other"} {
			if err := b.kafka.CreateTopic(topic, partitions, nil); err != nil {
				a.w.Fatal(err)
			}
		}
		b.start()
		a.start()
		b.produce(logRecord("app-1", "v"))
		a.mirrorEnd("app-1", 1)
		topics := map[string]bool{}
		for _, p := range a.show(api.ShowLinkParams{}).Partitions {
			topics[p.Topic] = true
		}
		if len(topics) != 4 || !topics["app-1"] || !topics[divergence.Topic] || !topics["session"] || !topics["config"] {
			t.Errorf("mirrored: %v", topics)
		}
		a.behind("0")
		rows := 0
		for _, row := range a.lag().Links {
			if row.Topic == "app-1" && row.Log == nil && row.State == replicator.Mirroring {
				rows++
			}
		}
		if rows != partitions {
			t.Errorf("%d rows of lag of app-1", rows)
		}
	})
}

// A topic whose mirror cannot be made has no lag that anybody knows, and the list of links
// says why.
func TestIncludedTopicWithoutMirror(t *testing.T) {
	two(t, func(a, b *region) {
		a.cfg.Links.Include = []string{"app-*"}
		if err := b.kafka.CreateTopic("app-1", partitions, nil); err != nil {
			a.w.Fatal(err)
		}
		refused := a.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "eu-central-1.app-1", Err: kerr.TopicAuthorizationFailed, Count: -1})
		b.start()
		a.start()
		b.produce(logRecord("session", "v"))
		a.mirrorEnd("session", 1)
		row := func() api.LinkRow {
			list, err := a.ListLinks(a.w.Context())
			if err != nil {
				a.w.Fatal(err)
			}
			return list.Links[0]
		}
		a.await("the link says so", func() error {
			r := row()
			if r.Running || !strings.Contains(r.Error, "topic app-1: create mirror") || len(r.Failing) != 1 || r.Lag != (replicator.Lag{}) {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		refused.Remove()
		a.mirrorEnd("app-1", 0)
		a.await("the link runs", func() error {
			if r := row(); !r.Running || len(r.Failing) > 0 || r.Lag.Records == nil {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	})
}

// What is not known has no value, and what is known has the right one.
func TestLinkMetrics(t *testing.T) {
	two(t, func(a, b *region) {
		registry := prometheus.NewRegistry()
		b.start()
		node := pipeline.NewRegion(a.cfg, pipeline.Parts{FS: a.disk, Registry: registry, Log: a.parts().Log, KafkaOpts: a.opts})
		if err := node.Start(a.w.Context()); err != nil {
			a.w.Fatal(err)
		}
		a.Region = node
		b.produce(logRecord("session", "v"))
		a.mirrorEnd("session", 1)
		a.behind("0")
		series := gather(t, registry)
		const labels = `origin="eu-central-1",partition="1"`
		for name, want := range map[string]float64{
			`evenkeel_links_configured{}`:                                           1,
			`evenkeel_link_up{origin="eu-central-1"}`:                               1,
			`evenkeel_link_state{` + labels + `,state="mirroring",topic="session"}`: 1,
			`evenkeel_link_lag_records{` + labels + `,topic="session"}`:             0,
			`evenkeel_link_lag_bytes{` + labels + `,topic="session"}`:               0,
			`evenkeel_link_lag_seconds{` + labels + `,topic="session"}`:             0,
		} {
			if got, ok := series[name]; !ok || got != want {
				t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
			}
		}
		for name, want := range map[string]bool{
			`evenkeel_link_fetch_age_seconds{` + labels + `,topic="session"}`: true,
			`evenkeel_link_ack_age_seconds{` + labels + `,topic="session"}`:   true,
			`evenkeel_link_ack_age_seconds{` + labels + `,topic="config"}`:    false,
		} {
			if _, ok := series[name]; ok != want {
				t.Errorf("%s is there: %v", name, ok)
			}
		}
		wantMetrics(t, registry, "../deploy/prometheus/logs.rules.yaml")
		b.down()
		a.inState("session", replicator.Waiting)
		time.Sleep(time.Second)
		for name, value := range gather(t, registry) {
			switch {
			case strings.Contains(name, "_lag_"), strings.Contains(name, `state="mirroring"`):
				t.Errorf("%s is %v while the source is away", name, value)
			case strings.HasPrefix(name, "evenkeel_link_up") && value != 0:
				t.Errorf("%s is %v while the source is away", name, value)
			}
		}
	})
}

// gather reads the gauges by name and labels.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			value := m.GetGauge().GetValue()
			switch {
			case m.GetCounter() != nil:
				value = m.GetCounter().GetValue()
			case m.GetGauge() == nil:
				continue
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			series[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return series
}
