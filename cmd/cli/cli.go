// Package cli is what the commands of Evenkeel share: exit codes, output for
// people or programs, and the end of a command by a signal.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

// ExitCodes is the part of a command's help that lists them.
const ExitCodes = `Exit codes: 0 ok, 1 failed, 2 usage or invalid input, 3 partial, 4 refused by a rule,
5 not found, 6 inconsistent (divergence or failed proof), 7 not ready.`

// Main runs a command until it ends or a signal comes, and returns the exit
// code. A second signal ends the process at once.
func Main(root *cobra.Command, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root.SetArgs(args)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return events.Errorf(events.KindInvalid, "%w; see: %s --help", err, c.CommandPath())
	})
	began := false
	noteBeginning(root, &began)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if !began && events.KindOf(err) == events.KindFailed { // what the library itself finds wrong with a command line
		err = events.Errorf(events.KindInvalid, "%w; see: %s --help", err, c.CommandPath())
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(root.ErrOrStderr(), "interrupted")
		return int(events.KindFailed)
	}
	fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", root.Name(), err)
	return int(events.KindOf(err))
}

// noteBeginning tells whether any of the commands has begun to run.
func noteBeginning(c *cobra.Command, began *bool) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			*began = true
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		noteBeginning(sub, began)
	}
}

// Args makes a check of the number of arguments whose error is a usage error.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return events.Errorf(events.KindInvalid, "%w; usage: %s", err, c.UseLine())
		}
		return nil
	}
}

// Group makes a command that only has subcommands: without one it shows help,
// with an unknown one it is a usage error.
func Group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return events.Errorf(events.KindInvalid, "unknown command %q; see: %s --help", args[0], c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// Output is how a command shows its result.
type Output struct {
	Format string // table or json
}

// outputVariable says how to show results where -o does not.
const outputVariable = "EVENKEEL_OUTPUT"

// Flag adds -o to a command and those below it. A format that is none is refused
// before the command does anything.
func (o *Output) Flag(c *cobra.Command) {
	o.Format = cmp.Or(os.Getenv(outputVariable), "table")
	c.PersistentFlags().VarP((*format)(o), "output", "o", "how to show results: table or json; also "+outputVariable)
	c.PersistentPreRunE = func(*cobra.Command, []string) error {
		if err := (*format)(o).Set(o.Format); err != nil {
			return events.Errorf(events.KindInvalid, "%s is %q: %w", outputVariable, o.Format, err)
		}
		return nil
	}
}

// format is an Output as a flag's value (pflag.Value).
type format Output

func (f *format) String() string { return f.Format }
func (f *format) Type() string   { return "format" }

func (f *format) Set(text string) error {
	if text != "table" && text != "json" {
		return errors.New("want table or json")
	}
	f.Format = text
	return nil
}

// Show writes a result: as JSON if asked, else by the table function.
func (o *Output) Show(w io.Writer, result any, table func(io.Writer) error) error {
	if o.Format != "json" {
		return table(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(result)
}

// Table is a table function for fixed rows.
func Table(header []string, rows [][]string) func(io.Writer) error {
	return func(w io.Writer) error { return term.Table(w, header, rows) }
}
