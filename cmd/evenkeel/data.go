package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

func (t *tool) putCommand() *cobra.Command {
	var typ, contentType string
	var context vectorFlag
	c := &cobra.Command{
		Use:   "put STREAM KEY [VALUE|-]",
		Short: "Write a value; without VALUE, or with -, it is read from standard input",
		Args:  cli.Args(cobra.RangeArgs(2, 3)),
		RunE: func(c *cobra.Command, args []string) error {
			value, err := valueArg(c.InOrStdin(), args[2:])
			if err != nil {
				return err
			}
			return t.put(c, api.PutParams{
				Stream: events.Stream(args[0]), Key: []byte(args[1]), Value: value, Type: typ, ContentType: contentType, Context: context.vector,
			})
		},
	}
	c.Flags().StringVar(&typ, "type", "", "CloudEvents type of the event (default an opaque put)")
	c.Flags().StringVar(&contentType, "content-type", "", "media type of the value")
	contextFlag(c, &context)
	return c
}

// vectorFlag is a vector as a flag's value (pflag.Value).
type vectorFlag struct {
	vector *events.Vector // nil: not given
}

func (f *vectorFlag) Type() string { return "vector" }

func (f *vectorFlag) String() string {
	if f.vector == nil {
		return ""
	}
	return f.vector.String()
}

func (f *vectorFlag) Set(text string) error {
	v, err := events.ParseVector(text)
	if err != nil {
		return err
	}
	f.vector = &v
	return nil
}

func contextFlag(c *cobra.Command, f *vectorFlag) {
	c.Flags().Var(f, "context", "what you had read before: the context that get or scan -o json printed (default: all that the node has)")
}

func (t *tool) deleteCommand() *cobra.Command {
	var context vectorFlag
	c := &cobra.Command{
		Use:   "delete STREAM KEY",
		Short: "Delete a key",
		Args:  cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return t.put(c, api.PutParams{Stream: events.Stream(args[0]), Key: []byte(args[1]), Context: context.vector})
		},
	}
	contextFlag(c, &context)
	return c
}

// operationCommand writes events of one of the generic types.
func (t *tool) operationCommand(use, short, long, typ string, needsContext bool) *cobra.Command {
	var contentType string
	var context vectorFlag
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: cli.Args(cobra.RangeArgs(2, 3)),
		RunE: func(c *cobra.Command, args []string) error {
			if needsContext && context.vector == nil {
				return events.Errorf(events.KindInvalid, "say with --context what you had read: the context that get -o json printed")
			}
			value, err := valueArg(c.InOrStdin(), args[2:])
			if err != nil {
				return err
			}
			return t.put(c, api.PutParams{
				Stream: events.Stream(args[0]), Key: []byte(args[1]), Value: value, Type: typ, ContentType: contentType, Context: context.vector,
			})
		},
	}
	c.Flags().StringVar(&contentType, "content-type", "", "media type of the value")
	contextFlag(c, &context)
	return c
}

func (t *tool) patchCommand() *cobra.Command {
	const short = "Change fields of an object, in streams that are merged by fieldmap"
	return t.operationCommand("patch STREAM KEY [JSON|-]", short, short+`. JSON is an object with any of these members:

  {"set": {field: value}, "unset": [field], "increment": {field: integer},
   "add": {field: [element]}, "remove": {field: [element]}}

Without JSON, or with -, it is read from standard input.`, events.TypePatch, false)
}

func (t *tool) appendCommand() *cobra.Command {
	const short = "Add an event to those of a key, in streams that are merged by append"
	return t.operationCommand("append STREAM KEY [VALUE|-]", short, short+". Without VALUE, or with -, it is read from standard input.", events.TypeAppend, false)
}

func (t *tool) resolveCommand() *cobra.Command {
	const short = "Settle a conflict: one value for those of writers who did not know of each other"
	return t.operationCommand("resolve STREAM KEY [VALUE|-] --context CONTEXT", short, short+`, in streams that are merged
by multivalue. It replaces the values that the context covers; get prints them, and the context. Without VALUE, or
with -, it is read from standard input.`, events.TypeResolve, true)
}

func valueArg(stdin io.Reader, args []string) ([]byte, error) {
	if len(args) == 1 && args[0] != "-" {
		return []byte(args[0]), nil
	}
	value, err := io.ReadAll(io.LimitReader(stdin, events.MaxValueBytes+1))
	if value == nil {
		value = []byte{}
	}
	return value, err
}

func (t *tool) put(c *cobra.Command, p api.PutParams) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	res, err := client.Put(c.Context(), p)
	if err != nil {
		return err
	}
	parked := t.awaitFold(c, client, p, res)
	err = t.out.Show(c.OutOrStdout(), res, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, res.Position)
		return err
	})
	if err != nil {
		return err
	}
	return parked
}

// foldPatience is how long a command that has written waits until its region reads
// what it wrote.
const foldPatience = 5 * time.Second

// awaitFold waits until whoever reads from the same region next sees what was written. If nobody
// ever will, because it was parked, that is an error. The write stands whatever else comes of the
// waiting, so that is told and no error.
func (t *tool) awaitFold(c *cobra.Command, client *api.Client, p api.PutParams, written *api.PutResult) error {
	outcome, err := client.Outcome(c.Context(), api.OutcomeParams{Position: written.Position, TimeoutSeconds: foldPatience.Seconds()})
	if events.KindOf(err) == events.KindInvalid { // a node of an earlier version does not know the question
		outcome = &api.Outcome{}
		_, err = client.Get(c.Context(), api.GetParams{
			Stream: p.Stream, Key: p.Key, Freshness: api.Freshness{AtLeast: written.AtLeast, TimeoutSeconds: foldPatience.Seconds()},
		})
		if events.KindOf(err) == events.KindNotFound { // it was deleted
			err = nil
		}
	}
	switch {
	case err != nil:
		fmt.Fprintf(c.ErrOrStderr(), "written, but not seen yet by readers of the region: %s\n", err)
	case outcome.Parked != "":
		return events.Errorf(events.KindRefused, "written to %s, but parked there, and without effect in any region: %s", written.Position, outcome.Parked)
	}
	return nil
}

// shellWord writes bytes so that a shell gives them to a command as they are; not ok if they are
// no plain text, which would do things to the terminal, or not survive it.
func shellWord(b []byte) (word string, ok bool) {
	if !utf8.Valid(b) || bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", false
	}
	text := string(b)
	isPlain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("-_./:,@%+", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !isPlain(r) }) {
		return text, true
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'", true
}

// printable keeps control characters and broken UTF-8 out of the terminal.
func printable(b []byte) string {
	quoted := fmt.Sprintf("%q", b)
	if plain := string(b); quoted == `"`+plain+`"` {
		return plain
	}
	return quoted
}
