package pipeline_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Values may be secrets. Whatever happens to them, they are in no line of the
// log, at any level, in no error, and in no status.
func TestValuesStaySecret(t *testing.T) {
	const secret = "hunter2-correct-horse"
	two(t, func(a, b *region) {
		a.cfg.Limits.MaxValueBytes = 10_000
		a.start()
		b.start()
		ctx := a.w.Context()
		value := api.Bytes(secret)
		var said []string // what callers were told
		tell := func(what any, err error) {
			text, jsonErr := json.Marshal(what)
			said = append(said, string(text), fmt.Sprint(err), fmt.Sprint(jsonErr))
		}
		put := func(p api.PutParams) {
			p.Stream = "session"
			tell(a.Put(ctx, p))
		}
		// Written, read, folded, mirrored.
		put(api.PutParams{Key: api.Bytes("k"), Value: value})
		a.has("k", secret)
		b.has("k", secret)
		// Refused, for every reason that has to do with the value.
		put(api.PutParams{Key: api.Bytes("k"), Value: api.Bytes(strings.Repeat(secret, 1_000))})
		put(api.PutParams{Value: value})
		put(api.PutParams{Key: api.Bytes("k"), Value: value, Type: events.TypeDelete})
		for _, contentType := range []string{"application/json", "application/protobuf", "text/plain"} {
			put(api.PutParams{Key: api.Bytes("k"), Value: value, Type: "erlmcp.session.started.v1", ContentType: contentType})
		}
		ahead := events.HLCAt(time.Now().Add(time.Hour))
		for _, e := range []api.LoadEvent{{Value: value}, {ID: "1", Value: value}, {ID: "1", Key: api.Bytes("k"), Value: value, Clock: &ahead}} {
			tell(a.Load(ctx, api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{e}}))
		}
		tell(a.Load(ctx, api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{{ID: "1", Key: api.Bytes("l"), Value: value}}}))
		tell(a.Landed(ctx, api.LandedParams{Stream: "session", Source: "s", After: &events.Vector{}}))
		// Parked, and behind a hole.
		header := kgo.RecordHeader{Key: "ce_id", Value: []byte("1")}
		a.produce(
			&kgo.Record{Topic: "session", Value: []byte(secret)},
			&kgo.Record{Topic: "session", Key: []byte("p"), Value: []byte(secret), Headers: []kgo.RecordHeader{header}},
		)
		a.compact("session")
		a.transact(kgo.TryCommit, &kgo.Record{Topic: "session", Key: []byte("t"), Value: []byte(secret)})
		a.produce(&kgo.Record{Topic: "session", Key: []byte("t"), Value: []byte(secret)})
		a.troubled("missing")
		// Backed up and restored.
		tell(a.CreateBackup(ctx))
		tell(a.restore("copy"))
		// Kafka goes away in the middle of a write.
		letGo := a.holdWrites()
		gone, leave := context.WithTimeout(ctx, time.Second)
		defer leave()
		tell(a.Put(gone, api.PutParams{Stream: "session", Key: api.Bytes("k"), Value: value}))
		letGo()
		a.down()
		put(api.PutParams{Key: api.Bytes("k"), Value: value})
		tell(a.Status(ctx))
		tell(a.Lag(ctx))
		tell(b.Status(ctx))
		a.stop()
		job := a.job()
		job.Dir = filepath.Join(dataDir, "elsewhere")
		tell(pipeline.Restore(ctx, job))

		said = append(said, a.log.String(), b.log.String())
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
			for _, text := range said {
				if i := strings.Index(text, form); i >= 0 {
					t.Errorf("the value is in …%s…", text[max(0, i-200):min(len(text), i+len(form)+20)])
				}
			}
		}
		if log := a.log.String(); !strings.Contains(log, "level=DEBUG") || len(log) < 10_000 {
			t.Errorf("the log does not say much: %d bytes", len(log))
		}
	})
}
