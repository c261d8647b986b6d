package main

import (
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

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
			b, err := client.CreateBackup(c.Context())
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), b, func(w io.Writer) error { return backupsTable(w, []api.Backup{*b}) })
		},
	}
}

func (t *tool) backupListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the backups in the region's bucket, oldest first",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			list, err := client.ListBackups(c.Context())
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), list, func(w io.Writer) error { return backupsTable(w, list.Backups) })
		},
	}
}

func backupsTable(w io.Writer, backups []api.Backup) error {
	var rows [][]string
	for _, b := range backups {
		var folded int64
		for _, st := range b.States {
			folded += st.Events
		}
		rows = append(rows, []string{
			b.ID, b.Region.String(), b.Created.Format(time.RFC3339), strconv.Itoa(b.Shards), strconv.Itoa(b.Tables),
			term.Bytes(b.Bytes), term.Count(folded),
		})
	}
	return term.Table(w, []string{"BACKUP", "REGION", "CREATED", "SHARDS", "TABLES", "SIZE", "EVENTS"}, rows)
}
