package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

func (t *tool) backupCommand() *cobra.Command {
	c := cli.Group("backup", "Make, look at, verify and prune backups",
		t.backupCreateCommand(), t.backupListCommand(), t.backupShowCommand(), t.backupStatusCommand(),
		t.backupVerifyCommand(), t.backupPruneCommand(), t.backupCopyCommand(), t.backupThawCommand())
	c.Long = c.Short + `.

All but create work without a node too: with --config they read the bucket that the configuration
names, themselves.`
	return c
}

// backups is how a command gets at backups: through a node, or by itself if path
// names a configuration.
type backups struct {
	tool     *tool
	path     string // of the configuration
	copy     string // name of the copy to read instead of the bucket; empty: the bucket
	identity string // file with the identity; empty: as configured
}

func (b *backups) flags(c *cobra.Command) {
	c.Flags().StringVar(&b.path, "config", "", "configuration file of a node: read its bucket, and ask no node")
	c.Flags().StringVar(&b.copy, "copy", "", "with --config: the copy with this name (backup.copies) instead of the bucket")
}

// again is a command with the flags that make it one about the same backups.
func (b *backups) again(command string) string {
	for _, flag := range []struct{ name, value string }{{"config", b.path}, {"copy", b.copy}} {
		if word, ok := shellWord([]byte(flag.value)); ok && flag.value != "" {
			command += fmt.Sprintf(" --%s %s", flag.name, word)
		}
	}
	if word, ok := shellWord([]byte(b.tool.server)); ok && b.path == "" && b.tool.server != defaultServer() {
		command += " --server " + word
	}
	return command
}

// direct opens the bucket; ok is false if a node is to be asked.
func (b *backups) direct(ctx context.Context) (direct pipeline.Backups, ok bool, err error) {
	if b.path == "" {
		if b.copy != "" {
			err = events.Errorf(events.KindInvalid, "--copy needs --config: nodes read their own bucket")
		}
		if b.identity != "" {
			err = events.Errorf(events.KindInvalid, "--identity needs --config: a node uses the identity that it is configured with")
		}
		return direct, false, err
	}
	cfg, err := config.Load(b.path, os.Environ())
	if err != nil {
		return direct, false, err
	}
	direct = pipeline.Backups{Config: cfg, Log: newLogger(cfg)}
	if direct.Bucket, err = needBucket(ctx, cfg, b.copy); err != nil {
		return direct, false, err
	}
	if direct.Copies, err = openCopies(ctx, cfg); err != nil {
		return direct, false, err
	}
	if b.identity != "" {
		direct.Opener, err = config.ReadIdentity(b.identity)
	}
	return direct, true, err
}

// needBucket opens the bucket, or the copy with a name.
func needBucket(ctx context.Context, cfg *config.Config, named string) (objstore.Bucket, error) {
	if named != "" {
		copies, err := openCopies(ctx, cfg)
		if err == nil && copies[named] == nil {
			err = events.Errorf(events.KindNotFound, "no copy %q is configured (backup.copies)", named)
		}
		return copies[named], err
	}
	bucket, err := openBucket(ctx, cfg)
	if err == nil && bucket == nil {
		err = events.Errorf(events.KindRefused, "no bucket is configured (backup.bucket)")
	}
	return bucket, err
}

// ask has direct do something, or a node if there is no configuration.
func ask[R any](ctx context.Context, b *backups, direct func(pipeline.Backups) (*R, error), node func(*api.Client) (*R, error)) (*R, error) {
	own, ok, err := b.direct(ctx)
	if err != nil {
		return nil, err
	}
	if ok {
		return direct(own)
	}
	client, err := b.tool.client()
	if err != nil {
		return nil, err
	}
	return node(client)
}

func (t *tool) backupCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "create",
		Short: "Back up every shard of the node's region to its bucket",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			end := term.Waiting(c.ErrOrStderr(), "the backup")
			b, err := client.CreateBackup(c.Context())
			end()
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), b, func(w io.Writer) error { return backupsTable(w, []api.Backup{*b}) })
		},
	}
}

func (t *tool) backupListCommand() *cobra.Command {
	b := &backups{tool: t}
	c := &cobra.Command{
		Use:   "list",
		Short: "List the backups in the region's bucket, oldest first, and what there is of the archive",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			list, err := ask(ctx, b, func(own pipeline.Backups) (*api.BackupList, error) { return own.List(ctx) },
				func(client *api.Client) (*api.BackupList, error) { return client.ListBackups(ctx) })
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), list, func(w io.Writer) error { return backupListTable(w, list) })
		},
	}
	b.flags(c)
	return c
}

func backupListTable(w io.Writer, list *api.BackupList) error {
	if err := backupsTable(w, list.Backups); err != nil || len(list.Archive) == 0 {
		return err
	}
	var rows [][]string
	for _, a := range list.Archive {
		rows = append(rows, []string{
			strconv.Itoa(int(a.Shard)), fmt.Sprintf("%d to %d", a.From, a.To), term.Bytes(a.Bytes), a.Oldest.Format(time.RFC3339), a.Newest.Format(time.RFC3339),
		})
	}
	fmt.Fprintln(w)
	return term.Table(w, []string{"SHARD", "SEGMENTS", "SIZE", "FROM", "TO"}, rows)
}

func backupsTable(w io.Writer, backups []api.Backup) error {
	var rows [][]string
	for _, b := range backups {
		var folded int64
		for _, st := range b.States {
			folded += st.Events
		}
		rows = append(rows, []string{
			b.ID, b.Kind, b.Region.String(), b.Created.Format(time.RFC3339), strconv.Itoa(b.Shards), strconv.Itoa(b.Tables),
			term.Bytes(b.Stored), term.Count(folded), tableKeys(b.Tables, b.Keys),
		})
	}
	return term.Table(w, []string{"BACKUP", "KIND", "REGION", "CREATED", "SHARDS", "TABLES", "SIZE", "EVENTS", "KEYS"}, rows)
}

// tableKeys is keysText for tables of which there may be none.
func tableKeys(tables int, keys []string) string {
	if tables == 0 {
		return "no tables"
	}
	return keysText(keys)
}

// keysText tells for which keys something is encrypted.
func keysText(keys []string) string {
	if len(keys) == 0 {
		return "NOT ENCRYPTED"
	}
	return strings.Join(keys, " ")
}
