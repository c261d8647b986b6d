package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/lab"
)

func regionsCommand(out *cli.Output) *cobra.Command {
	var control string
	c := &cobra.Command{
		Use:   "regions",
		Short: "List the regions of a running lab and where they are",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := lab.Control(c.Context(), control, http.MethodGet, "/regions")
			if err != nil {
				return err
			}
			var addresses []lab.Address
			if err := json.Unmarshal(text, &addresses); err != nil {
				return err
			}
			return out.Show(c.OutOrStdout(), addresses, func(w io.Writer) error { return addressTable(w, addresses) })
		},
	}
	controlFlag(c, &control)
	return c
}

// changed is what became of a region.
type changed struct {
	Region string          `json:"region"`
	Result json.RawMessage `json:"result"`
}

func changeCommand(out *cli.Output, verb, short string) *cobra.Command {
	var control string
	c := &cobra.Command{
		Use:   verb + " REGION",
		Short: short,
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := lab.Control(c.Context(), control, http.MethodPost, "/regions/"+url.PathEscape(args[0])+"/"+verb)
			if err != nil {
				return err
			}
			done := changed{args[0], text}
			return out.Show(c.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %s\n", done.Region, done.Result)
				return err
			})
		},
	}
	controlFlag(c, &control)
	return c
}

func controlFlag(c *cobra.Command, control *string) {
	c.Flags().StringVar(control, "lab", defaultControl(), "control page of the lab; also EVENKEEL_LAB")
}
