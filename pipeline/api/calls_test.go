package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/mapping"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// Samples of everything that is sent, no field left zero.
var (
	sampleOrigin   = events.Origin{Region: "us-east-1", Incarnation: 2}
	sampleLog      = events.Log{Origin: sampleOrigin, Stream: "session", Partition: 3}
	sampleClock    = events.HLCFromMillis(1_750_774_237_000) + 7
	sampleTime     = time.Date(2026, 5, 4, 3, 2, 1, 987654321, time.UTC)
	sampleDigest   = events.Digest{1, 2, 15: 0xff}
	sampleVector   = events.Vector{sampleLog: 42}
	sampleLogState = events.LogState{Log: sampleLog, Next: 7, Digest: sampleDigest, Keys: 6, Bytes: 5, Events: 4, Parked: 3}
	sampleEntry    = api.Entry{
		Stream: "session", Key: api.Bytes("k\xff"), Value: api.Bytes("<v> \u2028 & \x00"), ContentType: "text/plain",
		Type: "evenkeel.put.v1", Clock: sampleClock, Position: sampleLog.At(41),
		Siblings: []api.Sibling{{
			Value: api.Bytes("\xff"), ContentType: "a/b", Type: "t.v1", Clock: sampleClock, Position: sampleLog.At(40),
		}},
		Context: sampleVector,
	}
	sampleBackup = api.Backup{
		ID: "20260504T030201.987Z-00112233", Kind: "full", Region: "us-east-1", Created: sampleTime, Shards: 4, Tables: 5, Bytes: 1 << 40,
		Stored: 1 << 41, Keys: []string{"00112233445566aa"},
		States: []events.LogState{sampleLogState},
	}
	sampleModel = derived.Status{
		Name: "m", Version: 2, OfEvents: true, Streams: []events.Stream{"session"}, State: derived.Building, Stopped: "s", Failures: 3,
		Served: true, ServedVersion: 1, Begun: &sampleTime, Since: sampleVector, Stale: "t", Until: sampleVector, Done: 5, Total: 6,
	}
	sampleFreshness   = api.Freshness{AtLeast: sampleVector, TimeoutSeconds: 1.5}
	samplePoint       = api.PastPoint{Target: "t", Backup: "b", Created: sampleTime, Backups: 2, Segments: 3, Records: 4, Found: 1, Requests: 5, Bytes: 6, Lacks: []string{"why"}}
	sampleHistoryLogs = []api.HistoryLog{{Log: sampleLog, Start: 1, From: 2, Next: 3, End: 9, Archived: 5, Segment: 6, Gaps: []api.HistoryGap{{From: 7, To: 8, Why: "why"}}}}
	sampleCount       = int64(1)<<53 + 1 // not to be had in a float
	sampleSeconds     = 1.25
	samplePartition   = int32(3)
)

func sampleLag() replicator.Lag {
	return replicator.Lag{Records: &sampleCount, Bytes: &sampleCount, Seconds: &sampleSeconds}
}

func sampleDetails() replicator.Details {
	return replicator.Details{
		Status: replicator.Status{
			Origin: sampleOrigin, Destination: "eu-central-1", Running: true, Error: "e", Since: sampleTime, Stopped: []string{"s"},
		},
		Tasks: []replicator.TaskStatus{{Task: replicator.TaskGroups, State: "failing", Last: sampleTime, Problems: []string{"p"}}},
		Partitions: []replicator.PartitionStatus{{
			Topic: "session", Partition: 3, Mirror: "us-east-1_2.session", State: replicator.LostRecords, Since: sampleTime, Reason: "r",
			Stop: &replicator.StoppedError{
				Origin: sampleOrigin, Topic: "session", Partition: 3, State: replicator.LostRecords, Reason: "r", From: 4, To: sampleCount,
			},
			SourceNext: &sampleCount, MirrorEnd: &sampleCount, Identity: true, Lag: sampleLag(), FetchAge: &sampleSeconds, AckAge: &sampleSeconds,
		}, {Topic: "session", Partition: 4, State: replicator.Starting}},
		Memory: 9,
	}
}

func sampleStatus() *api.Status {
	return &api.Status{
		Region: "us-east-1", Node: "n", Software: "evenkeel x", Started: sampleTime, Ready: true, Problems: []string{"one", "two"},
		Events: &sampleCount, Keys: new(int64(2)), Parked: new(int64(3)), Digest: &sampleDigest, Logs: []events.LogState{sampleLogState},
		Nodes: []api.NodeStatus{
			{Node: "n", Address: "http://a:1", Ready: true, Software: "evenkeel x", Started: &sampleTime, Shards: []int32{3}},
			{Node: "m", Address: "http://b:1", Error: "e", Shards: []int32{}},
		},
		Shards: []api.ShardStatus{
			{
				Partition: 3, Node: "n", Epoch: 7, State: "open", Began: "b", Lineage: "l", Events: new(int64(1)), Keys: new(int64(2)), Parked: new(int64(3)),
				Digest: &sampleDigest, Blocked: []string{"hole"}, Load: api.ShardLoad{
					Pace: api.PacePebble, Behind: sampleCount, WaitSeconds: 1.5, FoldSeconds: 2.5, CommitSeconds: 3.5, StallSeconds: 4.5, L0Sublevels: 5, CompactionDebtBytes: 6,
				},
			},
			{Partition: 4, Node: "m", Epoch: 1 << 60, State: "unknown", Error: "e"},
		},
		Links: []replicator.Status{{
			Origin: sampleOrigin, Destination: "eu-central-1", Running: true, Error: "e", Since: sampleTime, Stopped: []string{"s"},
		}},
		Examples: []api.ParkedRecord{{Position: sampleLog.At(1), Reason: "why"}},
		Regions:  map[events.Region]string{"us-east-1": "http://127.0.0.1:7400"}, Backups: true,
		Backup: sampleBackupStatus(),
	}
}

func sampleBackupStatus() *api.BackupStatus {
	return &api.BackupStatus{
		Encryption: "age", Keys: []string{"00112233445566aa"}, Checked: sampleTime, Error: "e", Backups: 2, Damaged: []string{"b"},
		Points: []inventory.Point{{Stream: "session", Backup: "b", Created: sampleTime, Age: 1.5, States: []events.LogState{sampleLogState}}},
		Every:  86_400, Last: &api.BackupRun{Began: sampleTime, Duration: 2.5, Backup: "b", Bytes: 3, Error: "e"},
	}
}

func sampleManifest() *format.Manifest {
	return &format.Manifest{
		Format: 2, ID: sampleBackup.ID, Kind: "full", Region: "us-east-1", Created: sampleTime, Software: "s",
		Merge: map[events.Stream]string{"session": "lww"}, Shards: []format.Shard{{
			Partition: 3, Lineage: "l", Epoch: 4, States: []events.LogState{sampleLogState}, Tables: []format.Table{{
				Name: "n", Size: 1, SHA256: "a", StoredSize: 2, StoredSHA256: "b", Keys: []string{"k"},
			}},
		}},
	}
}

func TestEveryMethodRoundTrips(t *testing.T) {
	n := int64(4)
	for _, c := range []struct {
		method       string
		params, want any
		call         func(context.Context, *api.Client, any) (any, error)
	}{
		{
			"put", api.PutParams{Stream: "session", Key: api.Bytes("k\x80"), Value: api.Bytes(""), ContentType: "a/b", Type: "t.v1", Context: &sampleVector},
			&api.PutResult{Position: sampleLog.At(sampleCount), Clock: sampleClock, ID: "id", AtLeast: sampleVector},
			func(ctx context.Context, c *api.Client, p any) (any, error) { return c.Put(ctx, p.(api.PutParams)) },
		},
		{
			"load", api.LoadParams{Stream: "session", Source: "s", Turn: "t", Events: []api.LoadEvent{
				{ID: "1", Key: api.Bytes("k"), Value: api.Bytes("v"), Clock: &sampleClock, ContentType: "a/b"},
				{ID: "2", Key: api.Bytes("k")},
			}},
			&api.LoadResult{Written: 2, Ends: sampleVector},
			func(ctx context.Context, c *api.Client, p any) (any, error) { return c.Load(ctx, p.(api.LoadParams)) },
		},
		{
			"landed", api.LandedParams{Stream: "session", Source: "s", After: &sampleVector},
			&api.LandedResult{IDs: []string{"1", "2"}, Ends: sampleVector, Turn: "t", Limits: &api.LoadLimits{MaxValueBytes: 1, MaxClockSkewSeconds: 0.5, MaxBodyBytes: 2}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.Landed(ctx, p.(api.LandedParams))
			},
		},
		{
			"get", api.GetParams{Stream: "session", Key: api.Bytes("k"), Freshness: sampleFreshness}, &sampleEntry,
			func(ctx context.Context, c *api.Client, p any) (any, error) { return c.Get(ctx, p.(api.GetParams)) },
		},
		{
			"scan", api.ScanParams{Stream: "session", Prefix: api.Bytes("p\xff"), After: api.Bytes("a"), Limit: 9, Freshness: sampleFreshness},
			&api.ScanResult{Entries: []api.Entry{sampleEntry}, More: true, Context: sampleVector},
			func(ctx context.Context, c *api.Client, p any) (any, error) { return c.Scan(ctx, p.(api.ScanParams)) },
		},
		{
			"history", api.HistoryParams{Stream: "session", Key: api.Bytes("k\xff"), Since: &sampleTime, Logs: sampleHistoryLogs},
			&api.HistoryPart{Logs: sampleHistoryLogs, Done: true, Events: []api.HistoryEvent{{
				Position: sampleLog.At(4), Op: "put", Type: "t.v1", ID: "i", Source: "s", Clock: sampleClock, Effective: sampleClock + 1,
				Context: "us-east-1@7", Written: sampleTime, ContentType: "a/b", Value: api.Bytes("v\xff"), Parked: "why",
			}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.HistoryPart(ctx, p.(api.HistoryParams))
			},
		},
		{
			"status", nil, sampleStatus(),
			func(ctx context.Context, c *api.Client, _ any) (any, error) { return c.Status(ctx) },
		},
		{
			"lag", nil, &api.Lag{
				Region: "us-east-1", Folds: []api.LagRow{{Log: sampleLog, End: &n, Next: &n, Records: new(int64)}},
				Links: []api.LinkLag{
					{Origin: sampleOrigin, Topic: "other", Partition: 3, Error: "gone"},
					{Log: &sampleLog, Origin: sampleOrigin, Topic: "session", Partition: 3, State: replicator.Mirroring, End: &n, Next: &n,
						Lag: sampleLag(), FetchAge: &sampleSeconds, AckAge: &sampleSeconds},
				},
			},
			func(ctx context.Context, c *api.Client, _ any) (any, error) { return c.Lag(ctx) },
		},
		{
			"backup.create", nil, &sampleBackup,
			func(ctx context.Context, c *api.Client, _ any) (any, error) { return c.CreateBackup(ctx) },
		},
		{
			"slices", api.SlicesParams{
				Stream: "session", Shards: []int32{1, 3}, Key: api.Bytes("k\xff"), Prefix: api.Bytes("p"), After: api.Bytes("a\x00"), Limit: 9,
				Keys: []api.Bytes{api.Bytes("a"), api.Bytes("k\xff")},
			},
			&api.SlicesPage{Entities: []api.Entity{{Key: api.Bytes("k\xff"), Slices: []api.Slice{{Log: sampleLog, Data: []byte("\x00\xff")}}}}, More: true},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.Slices(ctx, p.(api.SlicesParams))
			},
		},
		{
			"applied", api.AppliedParams{Stream: "session", Shards: []int32{1, 3}, AtLeast: sampleVector, TimeoutSeconds: 1.5}, &api.Applied{Cut: sampleVector},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.Applied(ctx, p.(api.AppliedParams))
			},
		},
		{
			"parked", api.ParkedParams{Positions: []events.Position{sampleLog.At(sampleCount)}}, &api.Parked{Reasons: []string{"why", ""}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ParkedReasons(ctx, p.(api.ParkedParams))
			},
		},
		{
			"models.shards", api.ModelShardsParams{Shards: []int32{1, 3}},
			&api.ModelShards{Shards: []api.ShardModels{{Partition: 3, Models: []derived.Status{sampleModel}}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ModelShards(ctx, p.(api.ModelShardsParams))
			},
		},
		{
			"models.rebuild_shards", api.RebuildShardsParams{RebuildModelParams: api.RebuildModelParams{Name: "m", FromNow: true}, Shards: []int32{1, 3}},
			&api.ModelShards{Shards: []api.ShardModels{{Partition: 3, Models: []derived.Status{sampleModel}}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.RebuildShards(ctx, p.(api.RebuildShardsParams))
			},
		},
		{
			"models.page", api.ModelPageParams{Name: "m", Shards: []int32{1, 3}, Prefix: api.Bytes("p"), After: api.Bytes("\x00\xff"), Limit: 9},
			&api.ModelPage{Rows: []api.PagedRow{{
				ModelRow: api.ModelRow{Key: api.Bytes("k"), Value: api.Bytes("\xff"), Stream: "session", Of: api.Bytes("o"), Log: sampleLog.String()}, Next: api.Bytes("\x00\x01\xfe"),
			}}, More: true, Stale: []api.StaleShard{{Partition: 3, Reason: "why"}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ModelPage(ctx, p.(api.ModelPageParams))
			},
		},
		{
			"backup.shards", api.BackupShardsParams{Backup: "b", Shards: []int32{1, 3}},
			&api.ShardBackups{Shards: []format.Shard{{
				Partition: 3, Lineage: "l", States: []events.LogState{sampleLogState}, Tables: []format.Table{{Name: "n", Size: sampleCount, SHA256: "s"}},
			}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.BackupShards(ctx, p.(api.BackupShardsParams))
			},
		},
		{
			"backup.list", nil, &api.BackupList{Backups: []api.Backup{sampleBackup}},
			func(ctx context.Context, c *api.Client, _ any) (any, error) { return c.ListBackups(ctx) },
		},
		{
			"backup.show", api.ShowBackupParams{Backup: "b"}, &api.BackupDetails{Manifest: sampleManifest()},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ShowBackup(ctx, p.(api.ShowBackupParams))
			},
		},
		{
			"backup.get", api.GetAtParams{Stream: "session", Key: api.Bytes("k\xff"), PastTarget: api.PastTarget{Backup: "b"}}, &api.EntryAt{Entry: sampleEntry, PastPoint: samplePoint},
			func(ctx context.Context, c *api.Client, p any) (any, error) { return c.GetAt(ctx, p.(api.GetAtParams)) },
		},
		{
			"backup.scan", api.ScanAtParams{Stream: "session", Prefix: api.Bytes("k\xff"), After: api.Bytes("l"), Limit: 7, PastTarget: api.PastTarget{Vector: events.Vector{sampleLog: 3}}},
			&api.ScanAtResult{ScanResult: api.ScanResult{Entries: []api.Entry{sampleEntry}, More: true, Context: events.Vector{sampleLog: 3}}, PastPoint: samplePoint},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ScanAt(ctx, p.(api.ScanAtParams))
			},
		},
		{
			"backup.verify", api.VerifyBackupsParams{Backup: "b", All: true, Level: "decode"},
			&verify.Report{Region: "us-east-1", Level: "decode", Duration: 1.5, Backups: []verify.Backup{{
				ID: "b", Created: sampleTime, Objects: 3, Bytes: 4, Damaged: []inventory.Problem{{Object: "o", Error: "e"}},
			}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.VerifyBackups(ctx, p.(api.VerifyBackupsParams))
			},
		},
		{
			"backup.status", nil, sampleBackupStatus(),
			func(ctx context.Context, c *api.Client, _ any) (any, error) { return c.BackupStatus(ctx) },
		},
		{
			"backup.prune", api.PruneBackupsParams{Run: true},
			&prune.Report{
				Region: "us-east-1", DryRun: true, Plan: 3, Floor: "b", Late: []string{"l"}, Deleted: []string{"d"},
				Backups:   []prune.Verdict{{Backup: "b", Created: sampleTime, Bytes: 5, Keep: true, Why: "w"}},
				Leftovers: []prune.Leftover{{Backup: "b", Objects: 2, Bytes: 3, Keep: true, Why: "w"}},
				Left:      []inventory.Problem{{Object: "o", Error: "e"}},
				Held:      []prune.Held{{Object: "o", Hold: objstore.Hold{Until: sampleTime, Mode: "GOVERNANCE", Legal: true}}},
			},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.PruneBackups(ctx, p.(api.PruneBackupsParams))
			},
		},
		{
			"restore.plan", api.PlanRestoreParams{Request: timeline.Request{Target: timeline.Target{Ago: 5}, Base: "b", Streams: []events.Stream{"session"}, Shards: []int32{3}}},
			&timeline.Plan{
				Region: "r", Target: "t", Vector: events.Vector{sampleLogState.Log: 7}, Streams: []events.Stream{"session"}, Base: "b", Created: sampleTime,
				Shards:  []timeline.ShardPlan{{Span: timeline.Span{Shard: 3, First: 1, Last: 2, Records: 5, Bytes: 6}, Tables: 1, TableBytes: 2}},
				Objects: 3, Bytes: 8, Records: 5, Seconds: 0.5, Rates: timeline.Rates{BytesPerS: 2, Drill: "d"}, Lacks: []string{"x"},
				Classes: []timeline.ClassPlan{{Class: "c", Objects: 1, Bytes: 2, Archived: 3}},
			},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.PlanRestore(ctx, p.(api.PlanRestoreParams))
			},
		},
		{
			"restore.run", api.RestoreParams{Backup: "b", Request: timeline.Request{Target: timeline.Target{Offsets: events.Vector{sampleLogState.Log: 7}}}, Name: "n", Anew: true},
			&api.Restored{
				Region: "r", Software: "s", Target: "t", Vector: events.Vector{sampleLogState.Log: 7}, Streams: []events.Stream{"session"}, Shards: []int32{3},
				Merge: map[events.Stream]string{"session": "lww"}, Lineage: "l", Dir: "/d",
				Backup: "b", Created: sampleTime, From: events.Vector{sampleLogState.Log: 5}, Pinned: true, Tables: 1, Bytes: 2,
				Replayed: restore.Replayed{Segments: 4, Records: 3, Chains: 2, Marks: 1}, Resumed: true, Lacks: []string{"x"},
				Digest: sampleDigest, States: []events.LogState{sampleLogState}, Began: sampleTime, Duration: 1.5,
			},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.Restore(ctx, p.(api.RestoreParams))
			},
		},
		{
			"restore.shards", api.RestoreShardsParams{Request: timeline.Request{Target: timeline.Target{Backup: "b"}, Shards: []int32{3}}},
			&api.RestoringShards{Shards: []api.RestoringShard{{Partition: 3, Node: "n", ShardRestore: api.ShardRestore{
				Target: "t", Backup: "b", Lineage: "l", Began: sampleTime, Step: api.RestoreFetching, Bytes: 3, Fetched: 2,
				Until: events.Vector{sampleLogState.Log: 7}, Left: 5, Error: "e", Damaged: []string{"d"},
			}}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.RestoreShards(ctx, p.(api.RestoreShardsParams))
			},
		},
		{
			"restore.keys", api.RestoreKeysParams{Stream: "session", Prefix: api.Bytes("k"), After: api.Bytes("k\xff"), Limit: 3, Write: true, PastTarget: api.PastTarget{Time: &sampleTime}},
			&api.RestoredKeys{
				Stream: "session", PastPoint: api.PastPoint{Target: "t", Backup: "b", Created: sampleTime}, Vector: events.Vector{sampleLogState.Log: 7}, Same: 2, More: true, Last: api.Bytes("k2"),
				Keys: []api.RestoredKey{{
					Key: api.Bytes("k1"), Now: &api.KeyValue{Values: []api.Bytes{{255}}, Count: 1, Bytes: 1, Clock: 7, Position: sampleEntry.Position},
					Events: []string{"t"}, Written: []events.Position{sampleEntry.Position}, Error: "e", Refused: true,
				}},
			},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.RestoreKeys(ctx, p.(api.RestoreKeysParams))
			},
		},
		{
			"links.list", nil, &api.LinkList{Links: []api.LinkRow{{
				Status: sampleDetails().Status, Partitions: map[replicator.State]int{replicator.Mirroring: 3, replicator.LostRecords: 1},
				Lag: sampleLag(), Unknown: 1, Failing: sampleDetails().Tasks, Memory: 9,
			}, {Status: replicator.Status{Origin: sampleOrigin, Error: "not started"}, Partitions: map[replicator.State]int{}, Failing: []replicator.TaskStatus{}}}},
			func(ctx context.Context, c *api.Client, _ any) (any, error) { return c.ListLinks(ctx) },
		},
		{
			"links.show", api.ShowLinkParams{Origin: "us-east-1_2", Topic: "session", Partition: &samplePartition},
			&api.LinkDetails{Details: sampleDetails(), Runs: &mapping.Runs{{Source: 5, Dest: 0}, {Source: 9, Dest: 2}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ShowLink(ctx, p.(api.ShowLinkParams))
			},
		},
		{
			"links.pause", api.PauseLinkParams{Origin: "us-east-1_2", What: "topic/session/3"},
			&api.LinkPaused{Origin: sampleOrigin, What: []string{"topic/session/3"}, Paused: true, Partitions: sampleDetails().Partitions},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.PauseLink(ctx, p.(api.PauseLinkParams))
			},
		},
		{
			"links.unpause", api.PauseLinkParams{Origin: "us-east-1_2"},
			&api.LinkPaused{Origin: sampleOrigin, What: []string{"link"}, Partitions: []replicator.PartitionStatus{}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.UnpauseLink(ctx, p.(api.PauseLinkParams))
			},
		},
		{
			"links.resume", api.ResumeLinkParams{Origin: "us-east-1_2", Topic: "session", Partition: replicator.All, From: "earliest", DryRun: true},
			&api.LinkResumed{Origin: sampleOrigin, From: "earliest", DryRun: true, Partitions: []api.ResumedPartition{{
				Topic: "session", Partition: 3, Stop: sampleDetails().Partitions[0].Stop,
				SourceStart: &n, SourceEnd: &n, Next: &n, GoesOn: &n, Skipped: &n, Refused: "why",
			}}},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.ResumeLink(ctx, p.(api.ResumeLinkParams))
			},
		},
		{
			"links.verify", api.VerifyLinkParams{Origin: "us-east-1_2", Topic: "session", Partition: 3, From: sampleCount},
			&replicator.Verified{
				From: 1, Next: sampleCount, End: 3, Records: 4, Batches: 5, Bytes: 6, Expired: 7,
				Difference: &replicator.Difference{Source: 8, Mirror: 9, What: "value"},
			},
			func(ctx context.Context, c *api.Client, p any) (any, error) {
				return c.VerifyLink(ctx, p.(api.VerifyLinkParams))
			},
		},
	} {
		t.Run(c.method, func(t *testing.T) {
			var method string
			var params any
			s := serve(t, &fakeNode{do: func(_ context.Context, m string, p any) (any, error) {
				method, params = m, p
				return c.want, nil
			}})
			got, err := c.call(t.Context(), s.Client, c.params)
			if err != nil {
				t.Fatal(err)
			}
			if method != c.method || !reflect.DeepEqual(params, c.params) {
				t.Errorf("the node was asked %s %+v, want %s %+v", method, params, c.method, c.params)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// Every kind of error is the same kind on the other side, with the same text.
func TestKindsRoundTrip(t *testing.T) {
	for kind := events.KindFailed; kind <= events.KindNotReady; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) {
				return nil, fmt.Errorf("outer: %w", events.Errorf(kind, "inner %d%%, <&>", 5))
			}})
			_, err := s.Get(t.Context(), api.GetParams{})
			wantKind(t, err, kind)
			if want := "outer: inner 5%, <&>"; err == nil || err.Error() != want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
	t.Run("no kind", func(t *testing.T) {
		s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) { return nil, errors.New("plain") }})
		_, err := s.Status(t.Context())
		wantKind(t, err, events.KindFailed, "plain")
	})
	t.Run("the node gave up", func(t *testing.T) {
		s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) {
			return nil, fmt.Errorf("ends of a topic: %w", context.DeadlineExceeded)
		}})
		_, err := s.Status(t.Context())
		wantKind(t, err, events.KindNotReady, "ends of a topic")
	})
}

// What the wire looks like is a contract with clients that are not ours.
func TestWireForm(t *testing.T) {
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, _ any) (any, error) {
		if method == "get" {
			return &sampleEntry, nil
		}
		return nil, events.Errorf(events.KindNotFound, "no")
	}})
	for request, want := range map[string]string{
		`{"jsonrpc":"2.0","id":"a","method":"get","params":{"stream":"session","key":{"base64":"a/8="}}}`: `{"jsonrpc":"2.0","id":"a","result":` +
			`{"stream":"session","key":{"base64":"a/8="},"value":"<v> \u2028 & \u0000","content_type":"text/plain","type":"evenkeel.put.v1",` +
			`"clock":"1750774237000.7","position":"us-east-1_2/session/3@41","siblings":[{"value":{"base64":"/w=="},"content_type":"a/b","type":"t.v1",` +
			`"clock":"1750774237000.7","position":"us-east-1_2/session/3@40"}],"context":"us-east-1_2/session/3@42"}}`,
		`{"jsonrpc":"2.0","id":7,"method":"put","params":{}}`: `{"jsonrpc":"2.0","id":7,"error":{"code":-32005,"message":"no"}}`,
	} {
		status, got := s.post(request)
		if status != 200 || !sameJSON(t, got, want) {
			t.Errorf("%s\ngot  %d %s\nwant %s", request, status, got, want)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatalf("%v in %s or %s", err, a, b)
	}
	return reflect.DeepEqual(x, y)
}
