package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// key is the public half of a key.
type key struct {
	ID        string `json:"id"`
	Recipient string `json:"recipient"`
	File      string `json:"file"` // with the identity
}

func (t *tool) keysCommand() *cobra.Command {
	return cli.Group("keys", "Make and look at the keys that backups are encrypted with", t.keysGenerateCommand(), t.keysShowCommand())
}

func (t *tool) keysGenerateCommand() *cobra.Command {
	var path string
	var postQuantum bool
	c := &cobra.Command{
		Use:   "generate --out FILE",
		Short: "Make a key: its secret identity goes to a new file, its recipient is printed",
		Long: `Make a key for backups. Its identity, which is secret, goes to a new file that only its owner may
read; its recipient, which is not, is printed and belongs into backup.recipients of every node.

Make two: an operating key, of which nodes may have the identity to restore by themselves
(backup.identity_file), and a recovery key, whose identity is kept where no node is. Either opens every
backup. Whoever loses both has lost the backups. The age tool reads these files too.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return events.Errorf(events.KindInvalid, "say with --out into which file the identity goes")
			}
			recipient, err := config.GenerateIdentity(path, postQuantum)
			if err != nil {
				return err
			}
			return t.showKeys(c.OutOrStdout(), []key{{ID: seal.KeyID(recipient), Recipient: recipient, File: path}})
		},
	}
	c.Flags().StringVar(&path, "out", "", "file for the identity; must not exist")
	c.Flags().BoolVar(&postQuantum, "post-quantum", false, "a key that withstands quantum computers (all recipients must be of one kind)")
	return c
}

func (t *tool) keysShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show recipient and id of the keys in a file of identities",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			opener, err := config.ReadIdentity(args[0])
			if err != nil {
				return err
			}
			var keys []key
			for _, r := range opener.Recipients() {
				keys = append(keys, key{ID: seal.KeyID(r), Recipient: r, File: args[0]})
			}
			return t.showKeys(c.OutOrStdout(), keys)
		},
	}
}

func (t *tool) showKeys(w io.Writer, keys []key) error {
	return t.out.Show(w, keys, func(w io.Writer) error {
		for _, k := range keys {
			if _, err := fmt.Fprintf(w, "recipient: %s\nkey id:    %s\nidentity:  in %s (secret)\n", k.Recipient, k.ID, k.File); err != nil {
				return err
			}
		}
		return nil
	})
}
