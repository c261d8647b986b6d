package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
)

// tool is a command line with a few commands.
type tool struct {
	out  cli.Output
	ran  []string // what was called
	fail error    // what "fail" returns
	long func(context.Context) error
}

func (u *tool) command() *cobra.Command {
	does := func(use string, args cobra.PositionalArgs, run func(c *cobra.Command) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: "Does " + use, Args: cli.Args(args), RunE: func(c *cobra.Command, args []string) error {
			u.ran = append(u.ran, strings.Join(append([]string{c.Name()}, args...), " "))
			return run(c)
		}}
	}
	show := does("show KEY [MORE]", cobra.RangeArgs(1, 2), func(c *cobra.Command) error {
		return u.out.Show(c.OutOrStdout(), map[string]string{"a": "<&>"}, cli.Table([]string{"A"}, [][]string{{"<&>"}}))
	})
	required := does("required", cobra.NoArgs, func(*cobra.Command) error { return nil })
	required.Flags().String("stream", "", "")
	_ = required.MarkFlagRequired("stream")
	c := cli.Group("tool", "A tool", show, required,
		does("fail", cobra.NoArgs, func(*cobra.Command) error { return u.fail }),
		does("long", cobra.NoArgs, func(c *cobra.Command) error { return u.long(c.Context()) }),
		cli.Group("group", "A group", does("sub", cobra.NoArgs, func(*cobra.Command) error { return nil })),
	)
	u.out.Flag(c)
	return c
}

// run gives a command line to a tool.
func (u *tool) run(args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	c := u.command()
	c.SetIn(strings.NewReader(""))
	c.SetOut(&out)
	c.SetErr(&errOut)
	code = cli.Main(c, args)
	return code, out.String(), errOut.String()
}

// Every command line that is wrong ends with exit code 2, says what is wrong and
// where to look, and does nothing.
func TestUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		parts []string
	}{
		"unknown command":       {[]string{"shw"}, []string{`"shw"`, "tool --help"}},
		"unknown subcommand":    {[]string{"group", "sob"}, []string{`"sob"`, "tool group --help"}},
		"unknown flag":          {[]string{"show", "--key"}, []string{"--key", "tool show --help"}},
		"unknown short flag":    {[]string{"show", "-x"}, []string{"x", "--help"}},
		"flag without value":    {[]string{"show", "k", "-o"}, []string{"-o", "--help"}},
		"other format":          {[]string{"show", "k", "-o", "yaml"}, []string{`"yaml"`, "table or json"}},
		"other format, first":   {[]string{"-o", "JSON", "show", "k"}, []string{`"JSON"`}},
		"empty format":          {[]string{"show", "k", "--output="}, []string{"table or json"}},
		"too few arguments":     {[]string{"show"}, []string{"usage: tool show KEY [MORE]"}},
		"too many arguments":    {[]string{"show", "1", "2", "3"}, []string{"usage: tool show KEY [MORE]"}},
		"argument for none":     {[]string{"fail", "x"}, []string{"x", "usage: tool fail"}},
		"required flag missing": {[]string{"required"}, []string{"stream", "tool required --help"}},
	} {
		t.Run(name, func(t *testing.T) {
			u := &tool{}
			code, stdout, stderr := u.run(c.args...)
			if code != 2 || stdout != "" || len(u.ran) > 0 || !strings.HasPrefix(stderr, "tool: ") {
				t.Errorf("exit %d, ran %v\nstdout %q\nstderr %q", code, u.ran, stdout, stderr)
			}
			for _, part := range c.parts {
				if !strings.Contains(stderr, part) {
					t.Errorf("%q does not say %q", stderr, part)
				}
			}
		})
	}
}

// The exit code is the kind of the error.
func TestExitCodes(t *testing.T) {
	for kind := events.KindFailed; kind <= events.KindNotReady; kind++ {
		u := &tool{fail: fmt.Errorf("outer: %w", events.Errorf(kind, "inner"))}
		code, stdout, stderr := u.run("fail")
		if code != int(kind) || stdout != "" || stderr != "tool: outer: inner\n" {
			t.Errorf("%s: exit %d, %q, %q", kind, code, stdout, stderr)
		}
		if !strings.Contains(cli.ExitCodes, fmt.Sprintf("%d ", kind)) {
			t.Errorf("the help does not list %d", kind)
		}
	}
	u := &tool{fail: errors.New("plain")}
	if code, _, stderr := u.run("fail"); code != 1 || strings.Contains(stderr, "--help") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	// A cancellation that no signal has caused is a failure like any other.
	u.fail = context.Canceled
	if code, _, stderr := u.run("fail"); code != 1 || stderr != "tool: context canceled\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"help"}, {"group"}, {"group", "--help"}, {"help", "group"}, {"show", "--help"}} {
		u := &tool{}
		code, stdout, stderr := u.run(args...)
		if code != 0 || !strings.Contains(stdout, "Usage:") || stderr != "" || len(u.ran) > 0 {
			t.Errorf("%v: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
	if _, stdout, _ := (&tool{}).run("show", "--help"); !strings.Contains(stdout, "table or json") || !strings.Contains(stdout, `default table`) {
		t.Errorf("the help says nothing of -o: %s", stdout)
	}
}

func TestOutput(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"show", "k"}, "A\n<&>\n"},
		{[]string{"show", "k", "-o", "table"}, "A\n<&>\n"},
		{[]string{"show", "k", "-o", "json"}, "{\n  \"a\": \"<&>\"\n}\n"},
		{[]string{"--output=json", "show", "k"}, "{\n  \"a\": \"<&>\"\n}\n"},
	} {
		u := &tool{}
		if code, stdout, stderr := u.run(c.args...); code != 0 || stdout != c.want || stderr != "" {
			t.Errorf("%v: exit %d, %q, %q", c.args, code, stdout, stderr)
		}
	}
	t.Setenv("EVENKEEL_OUTPUT", "json")
	if code, stdout, _ := (&tool{}).run("show", "k"); code != 0 || !strings.HasPrefix(stdout, "{") {
		t.Errorf("by the variable: exit %d, %q", code, stdout)
	}
	if code, stdout, _ := (&tool{}).run("show", "k", "-o", "table"); code != 0 || stdout != "A\n<&>\n" {
		t.Errorf("by the flag: exit %d, %q", code, stdout)
	}
	t.Setenv("EVENKEEL_OUTPUT", "yaml")
	u := &tool{}
	if code, stdout, stderr := u.run("show", "k"); code != 2 || stdout != "" || len(u.ran) > 0 || !strings.Contains(stderr, `EVENKEEL_OUTPUT is "yaml": want table or json`) {
		t.Errorf("exit %d, ran %v, %q, %q", code, u.ran, stdout, stderr)
	}
	// Without a flag an Output is for people.
	var b bytes.Buffer
	if err := (&cli.Output{}).Show(&b, 1, func(w io.Writer) error { _, err := io.WriteString(w, "table"); return err }); err != nil || b.String() != "table" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, stdout, _ := (&tool{}).run("completion", shell); code != 0 || !strings.Contains(stdout, "tool") {
			t.Errorf("%s: exit %d, %d bytes", shell, code, len(stdout))
		}
	}
}

// The first signal ends the command by its context.
func TestInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		u := &tool{long: func(ctx context.Context) error {
			if err := syscall.Kill(syscall.Getpid(), signal); err != nil {
				return err
			}
			<-ctx.Done()
			return fmt.Errorf("put: %w", ctx.Err())
		}}
		if code, stdout, stderr := u.run("long"); code != 1 || stdout != "" || stderr != "interrupted\n" {
			t.Errorf("%s: exit %d, %q, %q", signal, code, stdout, stderr)
		}
	}
	// A command that ends well in spite of it has ended well.
	u := &tool{long: func(ctx context.Context) error {
		err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM)
		<-ctx.Done()
		return err
	}}
	if code, _, stderr := u.run("long"); code != 0 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
