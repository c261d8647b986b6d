package links

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/replicator"
)

// Lags is how far mirrors are behind, by topic and partition. Partitions of
// streams that the link does not know yet are unknown, not missing.
func Lags(cfg *config.Config, d replicator.Details) []api.LinkLag {
	streams := map[string]events.Stream{}
	unseen := map[events.Log]bool{}
	for name, s := range cfg.Streams {
		streams[s.Topic] = name
		for p := range cfg.Partitions {
			unseen[events.Log{Origin: d.Origin, Stream: name, Partition: p}] = true
		}
	}
	var rows []api.LinkLag
	for _, p := range d.Partitions {
		if p.Topic == cfg.AttestationTopic() {
			continue // no data: what regions say of themselves, all the time
		}
		row := lagOf(d.Origin, p)
		if name, ok := streams[p.Topic]; ok {
			row.Log = &events.Log{Origin: d.Origin, Stream: name, Partition: p.Partition}
			delete(unseen, *row.Log)
		}
		rows = append(rows, row)
	}
	for log := range unseen {
		rows = append(rows, api.LinkLag{
			Log: &log, Origin: log.Origin, Topic: cfg.Streams[log.Stream].Topic, Partition: log.Partition,
			Error: cmp.Or(d.Error, "the link has not come to this partition yet"),
		})
	}
	slices.SortFunc(rows, func(a, b api.LinkLag) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return rows
}

func lagOf(origin events.Origin, p replicator.PartitionStatus) api.LinkLag {
	row := api.LinkLag{
		Origin: origin, Topic: p.Topic, Partition: p.Partition, State: p.State,
		Next: p.SourceNext, Lag: p.Lag, FetchAge: p.FetchAge, AckAge: p.AckAge,
	}
	if p.SourceNext != nil && p.Lag.Records != nil {
		end := *p.SourceNext + *p.Lag.Records
		row.End = &end
		return row
	}
	row.Records = nil
	switch {
	case p.Stop != nil:
		row.Error = p.Stop.Reason
	case p.Reason != "":
		row.Error = p.Reason
	case p.State == replicator.Paused:
		row.Error = "paused by an operator"
	case p.FetchAge == nil:
		row.Error = "the source has not answered yet"
	default:
		row.Error = fmt.Sprintf("the source last answered %.0f s ago", *p.FetchAge)
	}
	return row
}
