package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
)

// result is what a command did.
type result struct {
	code           int
	stdout, stderr string
}

// command runs evenkeel with arguments and standard input.
func command(stdin string, args ...string) result {
	c := root()
	var out, errOut bytes.Buffer
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&errOut)
	code := cli.Main(c, args)
	return result{code, out.String(), errOut.String()}
}

// step is one command and what it must do.
type step struct {
	args   []string
	stdin  string
	code   int
	stdout []string // each is in it
	stderr []string
}

func (s step) run(t *testing.T) {
	t.Helper()
	r := command(s.stdin, s.args...)
	name := strings.Join(s.args, " ")
	if r.code != s.code {
		t.Errorf("%s: exit %d, want %d\n%s%s", name, r.code, s.code, r.stdout, r.stderr)
	}
	for _, want := range s.stdout {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%s: standard output has no %q:\n%s", name, want, r.stdout)
		}
	}
	for _, want := range s.stderr {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%s: standard error has no %q:\n%s", name, want, r.stderr)
		}
	}
}

func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWithoutNode(t *testing.T) {
	bad := file(t, "bad.yaml", "region: us-east-1\npartitons: 4\napi: {listen: nowhere}\n")
	for name, s := range map[string]step{
		"help":            {args: []string{"--help"}, stdout: []string{"Exit codes: 0 ok", "backup", "restore", "load"}},
		"version":         {args: []string{"--version"}, stdout: []string{"evenkeel "}},
		"unknown command": {args: []string{"frobnicate"}, code: 2, stderr: []string{`"frobnicate"`, "--help"}},
		"unknown verb":    {args: []string{"backup", "eat"}, code: 2, stderr: []string{`"eat"`}},
		"unknown flag":    {args: []string{"status", "--verbose"}, code: 2, stderr: []string{"--verbose"}},
		"too few":         {args: []string{"put", "session"}, code: 2, stderr: []string{"usage: evenkeel put STREAM KEY"}},
		"no node":         {args: []string{"status", "--server", "http://127.0.0.1:1"}, code: 7, stderr: []string{"127.0.0.1:1", "is it running?"}},
		"bad server":      {args: []string{"status", "--server", "nowhere"}, code: 2, stderr: []string{`"nowhere"`}},
		"no config":       {args: []string{"run", "--config", "no/such.yaml"}, code: 5, stderr: []string{"no/such.yaml"}},
		"bad config": {args: []string{"run", "--config", bad}, code: 2,
			stderr: []string{"partitons: unknown key; did you mean partitions?", "api.listen", "data_dir: missing", "regions"}},
		"no config given":       {args: []string{"run"}, code: 2, stderr: []string{"--config"}},
		"restore into a node's": {args: []string{"restore", "run", "--name", "x", "--copy", "west"}, code: 2, stderr: []string{"--copy does not go with --name"}},
		"restore elsewhere":     {args: []string{"restore", "run", "--name", "x", "--dir", "y"}, code: 2, stderr: []string{"--dir does not go with --name"}},
		"restore of a file's":   {args: []string{"restore", "run", "--name", "x", "--config", bad}, code: 2, stderr: []string{"--config does not go with --name"}},
		"restore ahead":         {args: []string{"restore", "run", "--name", "x", "--ahead"}, code: 2, stderr: []string{"--ahead does not go with --name"}},
		"restore as somebody":   {args: []string{"restore", "run", "--name", "x", "--identity", bad}, code: 2, stderr: []string{"--identity does not go with --name"}},
		"restore which kafka":   {args: []string{"restore", "kafka"}, code: 2, stderr: []string{"--config"}},
		"restore of what":       {args: []string{"restore", "run"}, code: 2, stderr: []string{"--config", "--name"}},
		"load lines with":       {args: []string{"load", bad, "--stream", "session", "--key-prefix", "test-"}, code: 2, stderr: []string{"--key-prefix", "--files"}},
		"load files as lines":   {args: []string{"load", bad, "--stream", "session", "--files", "--whole-line"}, code: 2, stderr: []string{"--whole-line does not go with --files"}},
		"load files with":       {args: []string{"load", bad, "--stream", "session", "--files", "--key-field", "id"}, code: 2, stderr: []string{"--key-field does not go with --files"}},
		"completion":            {args: []string{"completion", "bash"}, stdout: []string{"bash completion"}},
	} {
		t.Run(name, s.run)
	}
}

// The verbs against a lab, one after the other.
func TestVerbs(t *testing.T) {
	dir := t.TempDir()
	l, err := lab.Up(t.Context(), lab.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("EVENKEEL_SERVER", l.Addresses()[0].API)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	lines := file(t, "events.jsonl", `{"key":"l-1","value":{"n":1},"region":"us-west-1"}
{"key":"l-2","value":"text","region":"eu-central-1"}
{"key":"l-3","value":"mine"}
`)
	faulty := file(t, "faulty.jsonl", "{\"key\":\"a\",\"value\":1}\n{\"value\":1}\nno json\n")

	for _, s := range []step{
		{args: []string{"put", "session", "s-1", `{"user":"ada"}`}, stdout: []string{"us-east-1/session/"}},
		{args: []string{"put", "session", "bytes", "-"}, stdin: "\x00\xff\n", stdout: []string{"us-east-1/session/"}},
		{args: []string{"put", "session", "s-1", "not this", "-o", "xml"}, code: 2, stderr: []string{`"xml"`}},
		{args: []string{"put", "nothing", "k", "v"}, code: 5, stderr: []string{`"nothing"`, "session"}},
		{args: []string{"put", "session", "", "v"}, code: 2, stderr: []string{"key"}},
		{args: []string{"patch", "session", "s-1", "{}"}, code: 2, stderr: []string{"merge rule lww", "patch"}},
		{args: []string{"append", "session", "s-1", "-"}, stdin: "v", code: 2, stderr: []string{"merge rule lww", "append"}},
		{args: []string{"resolve", "session", "s-1", "v"}, code: 2, stderr: []string{"--context"}},
		{args: []string{"put", "session", "s-1", "v", "--context", "us-east-1/session/0@0"}, code: 2, stderr: []string{"--context", "offset 0"}},
		{args: []string{"put", "session", "s-1", "v", "--context", "us-east-1/session/0@99,us-east-1/session/1@99,us-east-1/session/2@99,us-east-1/session/3@99"}, code: 2, stderr: []string{"@99", "read the key here"}},
		{args: []string{"load", faulty, "--stream", "session"}, code: 2, stderr: []string{"faulty.jsonl:2", "faulty.jsonl:3", "nothing was loaded"}},
		{args: []string{"load", lines, "--stream", "session"}, stdout: []string{"us-west-1", "3 of 3 events written"}},
		{args: []string{"load", lines, "--stream", "session"}, code: 4, stderr: []string{"--again"}},
		{args: []string{"load", lines}, code: 2, stderr: []string{"stream"}},
	} {
		s.run(t)
	}
	awaitEvents(t, 5)
	testReadYourWrites(t, l.Addresses()[1].API)
	testWatch(t, l.Addresses()[1].API)
	for _, s := range []step{
		{args: []string{"get", "session", "s-1"}, stdout: []string{`{"user":"ada"}` + "\n"}},
		{args: []string{"get", "session", "bytes"}, stdout: []string{"\x00\xff\n\n"}},
		{args: []string{"get", "session", "l-2", "-o", "json"}, stdout: []string{`"value": "text"`, `"position": "eu-central-1/session/`}},
		{args: []string{"history", "session", "ryw"}, stdout: []string{"POSITION", "us-east-1/session/", "one", "two", "put"}},
		{args: []string{"history", "session", "ryw", "--limit", "1"}, stdout: []string{"two", "1 older events are left out"}},
		{args: []string{"history", "session", "watched-1", "-o", "json"}, stdout: []string{`"op": "delete"`, `"complete": true`, `"effective"`}},
		{args: []string{"history", "session", "nobody"}, code: 5, stderr: []string{`"nobody"`}},
		{args: []string{"history", "session", "ryw", "--from", "yesterday"}, code: 2, stderr: []string{`"yesterday"`}},
		{args: []string{"history", "session", "ryw", "--from", "2h"}, stdout: []string{"one", "two"}},
		{args: []string{"history", "nothing", "k"}, code: 5, stderr: []string{`"nothing"`}},
		{args: []string{"watch", "nothing"}, code: 5, stderr: []string{`"nothing"`}},
		{args: []string{"watch", "session", "--from", "x"}, code: 2, stderr: []string{`"x"`}},
		{args: []string{"watch", "session", "--key", "a", "--prefix", "b"}, code: 2, stderr: []string{"not both"}},
		{args: []string{"get", "session", "nobody"}, code: 5, stderr: []string{`"nobody"`}},
		{args: []string{"get", "session", "s-1", "-o", "xml"}, code: 2, stderr: []string{`"xml"`}},
		{args: []string{"scan", "session", "--prefix", "l-", "--limit", "2"}, stdout: []string{"l-1", "l-2", "--after l-2\n"}},
		{args: []string{"scan", "session", "--after-hex", "6c2d32"}, stdout: []string{"l-3"}},
		{args: []string{"scan", "session", "--after-hex", "6c2d32", "--after", "l-2"}, code: 2, stderr: []string{"after-hex"}},
		{args: []string{"scan", "session", "--after-hex", "l-2"}, code: 2, stderr: []string{"after-hex"}},
		{args: []string{"scan", "session", "--limit", "0x"}, code: 2},
		{args: []string{"shards"}, stdout: []string{"LINEAGE", "PACE", "keeping-up", "us-east-1/session/"}},
		{args: []string{"lag"}, stdout: []string{"BEHIND"}},
		{args: []string{"lag", "--all", "-o", "json"}, stdout: []string{`"folds"`, `"links"`}},
		{args: []string{"status"}, stdout: []string{"Region us-east-1", "READY", "us-west-1 → us-east-1"}},
		{args: []string{"shards", "-o", "json"}, stdout: []string{`"shards"`, `"lineage"`}},
		{args: []string{"scan", "session", "--prefix", "bytes", "-o", "json"}, stdout: []string{`"base64": "AP8K"`, `"more": false`}},
		{args: []string{"scan", "nothing"}, code: 5, stderr: []string{`"nothing"`}},
		{args: []string{"scan", "session", "--limit", "10001"}, code: 2, stderr: []string{"1 to 10000"}},
		{args: []string{"get", "session", "bytes", "-o", "json"}, stdout: []string{`"base64": "AP8K"`}},
		{args: []string{"models", "list"}, stdout: []string{"event-counts", "events", "running", "current", "the beginning"}},
		{args: []string{"models", "show", "event-counts"}, stdout: []string{"SHARD", "SERVED VERSION"}},
		{args: []string{"models", "show", "sessions"}, code: 5, stderr: []string{`"sessions"`, "event-counts"}},
		{args: []string{"models", "query", "event-counts", "--limit", "1"}, stdout: []string{"Z ", "/session/", "--after "}},
		{args: []string{"models", "query", "event-counts", "--after", "xyz"}, code: 2, stderr: []string{`"xyz"`}},
		{args: []string{"models", "query", "event-counts", "-o", "json"}, stdout: []string{`"rows"`, `"value": "1"`, `"stale": []`}},
		{args: []string{"models", "rebuild", "event-counts"}, stdout: []string{"running"}},
		{args: []string{"models", "rebuild", "event-counts", "--from-now"}, stdout: []string{"running"}},
		{args: []string{"models", "query", "event-counts"}, stdout: []string{"KEY"}},
		{args: []string{"restore", "run", "--name", "early"}, code: 5, stderr: []string{"evenkeel backup create"}},
		{args: []string{"backup", "create"}, stdout: []string{"us-east-1"}},
		{args: []string{"backup", "list", "-o", "json"}, stdout: []string{`"backups"`, `"region": "us-east-1"`}},
		{args: []string{"backup", "show"}, stdout: []string{"us-east-1/session/", "CHAIN", ".sst.age", "(format 4): a full backup"}},
		{args: []string{"backup", "show", "20200101T000000.000Z-00000000"}, code: 5, stderr: []string{"evenkeel backup list"}},
		{args: []string{"backup", "verify"}, stdout: []string{"hashes", "ok"}},
		{args: []string{"backup", "verify", "--all", "--level", "restore"}, stdout: []string{"restore", "ok"}},
		{args: []string{"backup", "verify", "--level", "everything"}, code: 2, stderr: []string{"manifests, hashes, decode, restore"}},
		{args: []string{"backup", "verify", "x", "--all"}, code: 2, stderr: []string{"not both"}},
		{args: []string{"backup", "verify", "--identity", "x"}, code: 2, stderr: []string{"--config"}},
		{args: []string{"backup", "status"}, stdout: []string{"1 backups", "encryption: age", "session", "secrets", "on demand only"}},
		{args: []string{"backup", "prune"}, stdout: []string{"keep", "the newest that can be restored", "Nothing was deleted"}},
		{args: []string{"backup", "prune", "--yes"}, stdout: []string{"0 objects were deleted"}},
		{args: []string{"backup", "prune", "--yes", "--dry-run"}, code: 2, stderr: []string{"not both"}},
		{args: []string{"get", "session", "s-1", "--at", "newest"}, stdout: []string{`{"user":"ada"}` + "\n"}, stderr: []string{"as it was at backup 2", "made of backup 2"}},
		{args: []string{"get", "session", "s-1", "--at", "newest", "-o", "json"}, stdout: []string{`"backup": "2`, `"context"`, `"requests"`}},
		{args: []string{"scan", "session", "--at", "newest"}, stdout: []string{"s-1"}, stderr: []string{"made of backup 2"}},
		{args: []string{"get", "session", "s-1", "--at", "us-east-1/nothing/0@1"}, code: 2, stderr: []string{"no log of stream session"}},
		{args: []string{"get", "session", "s-1", "--at", "2h"}, code: 5, stderr: []string{"nothing", "--at ID"}},
		{args: []string{"get", "session", "s-1", "--at", "soon"}, code: 2, stderr: []string{`"soon"`}},
		{args: []string{"get", "session", "s-1", "--at", "newest", "--including", "us-east-1/session/0@0"}, code: 2, stderr: []string{"--at"}},
		{args: []string{"get", "session", "s-1", "--config", "x"}, code: 2, stderr: []string{"--at"}},
		{args: []string{"restore", "run", "--instant", "--name", "x"}, code: 2, stderr: []string{"--config"}},
		{args: []string{"restore", "run", "--name", "../x"}, code: 2, stderr: []string{`"../x"`}},
		{args: []string{"restore", "run", "--name", "one"}, stdout: []string{"proved", "DIGEST (RECOMPUTED)"}},
		{args: []string{"restore", "run", "--name", "one"}, code: 4, stderr: []string{"not empty"}},
		{args: []string{"restore", "plan"}, stdout: []string{"To the newest of us-east-1", "us-east-1/session/", "It begins with backup", "SEGMENTS", "records/s"}},
		{args: []string{"restore", "plan", "--to-time", "1h", "-o", "json"}, code: 5, stderr: []string{"nothing", "--to-newest", "--backup ID"}},
		{args: []string{"restore", "plan", "--to-offset", "us-east-1/session/0@99999999"}, code: 5, stderr: []string{"us-east-1/session/0", "99999998"}},
		{args: []string{"restore", "plan", "--to-offset", "us-east-1/session/77@1"}, code: 2, stderr: []string{"us-east-1/session/77"}},
		{args: []string{"restore", "plan", "--to-time", "yesterday"}, code: 2, stderr: []string{`"yesterday"`, "RFC 3339", "1d12h"}},
		{args: []string{"restore", "plan", "--to-time", "2999-01-01T00:00:00Z"}, code: 2, stderr: []string{"not over yet"}},
		{args: []string{"restore", "plan", "--to-time", "1h", "--to-newest"}, code: 2, stderr: []string{"to-time", "to-newest"}},
		{args: []string{"restore", "plan", "--shards", "99"}, code: 2, stderr: []string{"no shard 99"}},
		{args: []string{"delete", "session", "s-1"}, stdout: []string{"us-east-1/session/"}},
	} {
		s.run(t)
	}
	awaitEvents(t, 12)
	for _, s := range []step{
		{args: []string{"get", "session", "s-1"}, code: 5},
		{args: []string{"restore", "key", "session"}, code: 2, stderr: []string{"--prefix"}},
		{args: []string{"restore", "key", "session", "s-1", "--prefix", "s-"}, code: 2, stderr: []string{"--prefix"}},
		{args: []string{"restore", "key", "session", "s-1", "--to-time", "soon"}, code: 2, stderr: []string{"--to-time", `"soon"`}},
		{args: []string{"restore", "key", "session", "s-1"}, stdout: []string{"THEN", "ada", "evenkeel.put.v1", "Nothing was written"}},
		{args: []string{"get", "session", "s-1"}, code: 5},
		{args: []string{"restore", "key", "session", "--prefix", "s-", "--yes"}, stdout: []string{"us-east-1/session/"}},
		{args: []string{"get", "session", "s-1"}, stdout: []string{`{"user":"ada"}` + "\n"}},
		{args: []string{"restore", "key", "session", "s-1", "--yes"}, stdout: []string{"it is what it was"}},
		{args: []string{"restore", "key", "session", "nobody"}, code: 5, stderr: []string{`"nobody"`}},
		{args: []string{"restore", "shards", "--shards", "99"}, code: 2, stderr: []string{"no shard 99"}},
		{args: []string{"restore", "shards", "--shards", "1,x"}, code: 2, stderr: []string{`"x" is no shard`, "such as 0,2"}},
		{args: []string{"restore", "plan", "--shards", "-1"}, code: 2, stderr: []string{`"-1" is no shard`}},
		{args: []string{"restore", "shards"}, code: 2, stderr: []string{"--shards", "--all"}},
		{args: []string{"restore", "shards", "--all", "--shards", "1"}, code: 2, stderr: []string{"--shards", "--all"}},
		{args: []string{"restore", "shards", "--all", "--dry-run"}, stdout: []string{"To backup 2", "It begins with backup 2", "other regions have attested", "Nothing was begun"}},
		{args: []string{"restore", "shards", "--shards", "99", "--dry-run"}, code: 2, stderr: []string{"no shard 99"}},
		{args: []string{"restore", "shards", "--shards", "0,2"}, stdout: []string{"LINEAGE", "done"}, stderr: []string{"shard 2: done"}},
		{args: []string{"get", "session", "s-1"}, stdout: []string{`{"user":"ada"}` + "\n"}},
	} {
		s.run(t)
	}
	withoutNodes(t, l, dir)
}

// withoutNodes looks after the backups of a lab's first region by its bucket alone, and
// restores with the recovery key alone.
func withoutNodes(t *testing.T, l *lab.Lab, dir string) {
	t.Helper()
	url, accessKey, secretKey := l.S3()
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	t.Setenv("EVENKEEL_SERVER", "http://127.0.0.1:1") // nobody is there
	recovery := filepath.Join(dir, "keys", "recovery.key")
	scratch := t.TempDir()
	made := []string{filepath.Join(scratch, "a.key"), filepath.Join(scratch, "b.key")}
	var recipients []string
	for _, path := range made {
		step{args: []string{"keys", "generate", "--out", path}, stdout: []string{"recipient: age1", path}}.run(t)
		step{args: []string{"keys", "generate", "--out", path}, code: 4, stderr: []string{"never overwritten"}}.run(t)
		var keys []key
		if err := json.Unmarshal([]byte(command("", "keys", "show", path, "-o", "json").stdout), &keys); err != nil {
			t.Fatal(err)
		}
		recipients = append(recipients, keys[0].Recipient)
	}
	config := file(t, "offline.yaml", `region: us-east-1
data_dir: `+scratch+`
regions: {us-east-1: {kafka: {seeds: ["127.0.0.1:1"]}}}
backup: {bucket: `+l.Addresses()[0].Bucket+`, endpoint: "`+url+`", path_style: true, recipients: [`+strings.Join(recipients, ", ")+`]}
`)
	opening := file(t, "opening.yaml", `region: us-east-1
data_dir: `+scratch+`
regions: {us-east-1: {kafka: {seeds: ["127.0.0.1:1"]}}}
backup: {bucket: `+l.Addresses()[0].Bucket+`, endpoint: "`+url+`", path_style: true, recipients: [`+strings.Join(recipients, ", ")+`], identity_file: `+recovery+`,
  copies: {there: {bucket: `+l.Addresses()[1].Bucket+`, prefix: there, endpoint: "`+url+`", path_style: true}, empty: {bucket: `+l.Addresses()[1].Bucket+`, prefix: empty, endpoint: "`+url+`", path_style: true}}}
`)
	awaitCode(t, 0, "history", "session", "s-1", "--config", opening) // until it is archived
	ids := func() (ids []string) {
		var list api.BackupList
		if err := json.Unmarshal([]byte(command("", "backup", "list", "--config", config, "-o", "json").stdout), &list); err != nil {
			t.Fatal(err)
		}
		for _, b := range list.Backups {
			ids = append(ids, b.ID)
		}
		return ids
	}()
	for _, s := range []step{
		{args: []string{"backup", "show", "--config", config, ids[0]}, stdout: []string{ids[0]}},
		{args: []string{"backup", "status", "--config", config}, stdout: []string{ids[0], "every 24h0m0s", "NOT ARCHIVED", "unknown", " ago", "evenkeel backup list"}},
		{args: []string{"backup", "status", "--config", opening}, stdout: []string{"NEWEST RESTORABLE", "there", "empty", "NONE"}},
		{args: []string{"backup", "status", "--config", opening, "-o", "json"}, stdout: []string{`"records": null`, `"copy": "there"`, `"report": null`}},
		{args: []string{"backup", "prune", "--config", config}, stdout: []string{"Nothing was deleted. To delete: evenkeel backup prune --yes --config " + config + "\n"}},
		{args: []string{"backup", "copy", "there", "--config", opening}, stdout: []string{"up to date"}},
		{args: []string{"backup", "prune", "--config", opening, "--copy", "there"}, stdout: []string{"To delete: evenkeel backup prune --yes --config " + opening + " --copy there\n"}},
		{args: []string{"restore", "kafka", "--config", opening, "--copy", "nowhere", "--dry-run"}, code: 5, stderr: []string{`no copy "nowhere"`}},
		{args: []string{"restore", "kafka", "--config", opening, "--copy", "there", "--dry-run"}, stdout: []string{"topic session", "segments"}},
		{args: []string{"restore", "kafka", "--config", opening, "--copy", "empty", "--dry-run"}, code: 5, stderr: []string{"no segment"}},
		{args: []string{"backup", "verify", "--config", config}, stdout: []string{"ok"}},
		{args: []string{"backup", "verify", "--all", "--config", opening, "--copy", "empty"}, code: 5, stderr: []string{"holds nothing of us-east-1", "prefix"}},
		{args: []string{"backup", "verify", "--config", config, "--level", "decode"}, code: 5, stderr: []string{"no identity was given", ".sst.age"}},
		{args: []string{"backup", "verify", "--config", config, "--level", "restore", "--identity", recovery}, stdout: []string{"ok"}},
		{args: []string{"get", "session", "s-1", "--at", ids[0], "--config", config}, code: 5, stderr: []string{"no identity was given"}},
		{args: []string{"get", "session", "s-1", "--at", ids[0], "--config", config, "--identity", recovery}, stdout: []string{`{"user":"ada"}` + "\n"}, stderr: []string{ids[0]}},
		{args: []string{"scan", "session", "--at", ids[0], "--config", opening}, stdout: []string{"s-1"}, stderr: []string{ids[0]}},
		{args: []string{"history", "session", "s-1", "--config", opening}, stdout: []string{"put", "us-east-1/session/"}},
		{args: []string{"history", "session", "s-1", "--config", opening, "--until", "1000h"}, code: 5, stderr: []string{"no event"}},
		{args: []string{"restore", "run", "--config", config}, code: 5, stderr: []string{"no identity was given", "--identity"}},
		{args: []string{"restore", "run", "--config", config, "--instant"}, code: 4, stderr: []string{"broken off", "--anew"}},
		{args: []string{"restore", "run", "--config", config, "--instant", "--dir", filepath.Join(scratch, "elsewhere")}, code: 5, stderr: []string{"no identity was given", ".sst.age"}},
		{args: []string{"restore", "run", "--config", opening, "--instant", "--dir", filepath.Join(scratch, "in-place")}, stdout: []string{ids[0], "Start the node"}},
		{args: []string{"restore", "proof", filepath.Join(scratch, "in-place")}, code: 7, stderr: []string{"not proved yet", ids[0]}},
		{args: []string{"restore", "run", "--config", opening, "--instant", "--dir", filepath.Join(scratch, "in-place")}, code: 4, stderr: []string{"not empty"}},
		{args: []string{"restore", "run", "--config", config, "--identity", made[0]}, code: 5, stderr: []string{"sealed for the keys"}},
		{args: []string{"restore", "run", "--config", config, "--identity", config}, code: 2, stderr: []string{"no age identity"}},
		{args: []string{"restore", "plan", "--config", config}, stdout: []string{ids[0]}},
		{args: []string{"restore", "run", "--config", config, "--backup", ids[0]}, code: 4, stderr: []string{"broken off", "--anew"}},
		{args: []string{"restore", "run", "--config", config, "--identity", recovery}, stdout: []string{"proved"}},
		{args: []string{"restore", "proof", filepath.Join(scratch, "state")}, stdout: []string{"is what the report says", "us-east-1/session/"}},
		{args: []string{"restore", "proof", filepath.Join(scratch, "state", "restore-report.json"), "-o", "json"}, stdout: []string{ids[0], `"lineage"`}},
		{args: []string{"restore", "proof", scratch}, code: 5, stderr: []string{"restore-report.json"}},
		{args: []string{"keys", "generate"}, code: 2, stderr: []string{"--out"}},
		{args: []string{"keys", "show", config}, code: 2, stderr: []string{"no age identity"}},
	} {
		s.run(t)
	}
	damage(t, filepath.Join(dir, "s3", "data", l.Addresses()[0].Bucket))
	for _, level := range []string{"hashes", "decode", "restore"} {
		step{args: []string{"backup", "verify", "--all", "--config", config, "--level", level, "--identity", recovery}, code: 6,
			stdout: []string{"DAMAGED"}, stderr: []string{"us-east-1/tables/" + ids[0], ".sst.age"}}.run(t)
	}
}

// damage changes the last byte of some table.
func damage(t *testing.T, tables string) {
	t.Helper()
	var found string
	err := filepath.WalkDir(tables, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "us-east-1/tables/") && strings.HasSuffix(path, ".age") {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no table in %s: %v", tables, err)
	}
	body, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)-1] ^= 1
	f, err := os.OpenFile(found, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		t.Fatal(err)
	}
}

// testReadYourWrites writes in one region and reads in another, as people and as
// programs do.
func testReadYourWrites(t *testing.T, other string) {
	t.Helper()
	position := strings.TrimSpace(command("", "put", "session", "ryw", "one").stdout)
	step{args: []string{"get", "session", "ryw", "--including", position, "--server", other}, stdout: []string{"one\n"}}.run(t)
	var written api.PutResult
	if err := json.Unmarshal([]byte(command("", "put", "session", "ryw", "two", "-o", "json").stdout), &written); err != nil {
		t.Fatal(err)
	}
	cut := written.AtLeast.String()
	for _, s := range []step{
		{args: []string{"get", "session", "ryw", "--at-least", cut, "--server", other}, stdout: []string{"two\n"}},
		{args: []string{"scan", "session", "--at-least", cut, "-o", "json", "--server", other}, stdout: []string{`"context": "`, cut}},
		{args: []string{"get", "session", "ryw", "--at-least", written.Position.Log.At(99).String(), "--timeout", "10ms"}, code: 7,
			stderr: []string{"us-east-1 is behind", "short of 99", "waited for 10ms"}},
		{args: []string{"get", "session", "ryw", "--at-least", "mars/session/0@1"}, code: 2, stderr: []string{"no such log"}},
		{args: []string{"get", "session", "ryw", "--including", "nowhere"}, code: 2, stderr: []string{`"nowhere"`}},
		{args: []string{"get", "session", "ryw", "--timeout", "2m", "--at-least", cut}, code: 2, stderr: []string{"60"}},
		{args: []string{"get", "session", "ryw", "--timeout", "0s"}, code: 2, stderr: []string{"--timeout"}},
	} {
		s.run(t)
	}
}

// watchUntil runs a watch and gives its lines to a function until that returns false.
func watchUntil(t *testing.T, goesOn func(line string) bool, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	c := root()
	c.SetArgs(append([]string{"watch"}, args...))
	c.SetOut(in)
	c.SilenceErrors, c.SilenceUsage = true, true
	ended := make(chan error, 1)
	go func() {
		ended <- c.ExecuteContext(ctx)
		_ = in.Close() // never fails
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() && goesOn(lines.Text()) {
	}
	cancel()
	_ = out.Close() // never fails
	if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("watch %v: %v", args, err)
	}
}

// testWatch watches in one region what is written in another, and goes on from a
// context in a third call.
func testWatch(t *testing.T, other string) {
	t.Helper()
	var contexts []events.Vector
	var keys []string
	watchUntil(t, func(line string) bool {
		var change api.Change
		if err := json.Unmarshal([]byte(line), &change); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if change.Context != nil {
			contexts = append(contexts, *change.Context)
		}
		if change.Key == nil && len(contexts) == 1 {
			for _, args := range [][]string{{"put", "session", "watched-1", "v"}, {"put", "session", "unwatched", "v"}, {"put", "session", "watched-2", "v"}} {
				step{args: args}.run(t)
			}
		}
		if change.Key != nil {
			keys = append(keys, string(change.Key))
		}
		return len(keys) < 2
	}, "session", "--prefix", "watched-", "-o", "json", "--server", other)
	slices.Sort(keys)
	if fmt.Sprint(keys) != "[watched-1 watched-2]" {
		t.Errorf("watched %v", keys)
	}
	step{args: []string{"delete", "session", "watched-1"}}.run(t)
	watchUntil(t, func(line string) bool { return line != "watched-1  is deleted" },
		"session", "--key", "watched-1", "--from", contexts[0].String())
}

// awaitEvents waits until the node has folded so many events.
func awaitEvents(t *testing.T, n int64) {
	t.Helper()
	for {
		r := command("", "status", "-o", "json")
		var s api.Status
		if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || r.code != 0 {
			t.Fatalf("status: exit %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
		}
		if api.Known(s.Events) >= n {
			return
		}
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
}
