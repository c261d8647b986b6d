package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/telemetry"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func upCommand(out *cli.Output) *cobra.Command {
	var cfg lab.Config
	var regions []string
	var kafka map[string]string
	var verbose bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Start the lab and run it until Ctrl-C; a lab that was there before goes on where it was",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			for _, r := range regions {
				cfg.Regions = append(cfg.Regions, events.Region(r))
			}
			cfg.Kafka = external(kafka)
			return up(c.Context(), c.OutOrStdout(), cfg, out, logger(verbose))
		},
	}
	c.Flags().StringVar(&cfg.Dir, "dir", "evenkeel-lab.data", "directory of the lab; made if missing")
	c.Flags().StringSliceVar(&regions, "regions", nil, "names of the regions (default us-east-1,us-west-1,eu-central-1)")
	c.Flags().Int32Var(&cfg.Partitions, "partitions", 0, fmt.Sprintf("partitions of every stream (default %d)", lab.DefaultPartitions))
	c.Flags().IntVar(&cfg.Nodes, "nodes", 0, "nodes of each region (default 1)")
	c.Flags().IntVar(&cfg.BasePort, "base-port", lab.DefaultBasePort, "first port of a new lab; 0: any ports that are free")
	kafkaFlag(c, &kafka)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more than warnings")
	return c
}

func kafkaFlag(c *cobra.Command, kafka *map[string]string) {
	c.Flags().StringToStringVar(kafka, "kafka", nil, "use Kafka clusters that are there already: REGION=HOST:PORT,… (default embedded ones)")
}

func external(kafka map[string]string) map[events.Region]string {
	clusters := map[events.Region]string{}
	for region, address := range kafka {
		clusters[events.Region(region)] = address
	}
	return clusters
}

func logger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return telemetry.NewLogger(os.Stderr, level, false)
}

func up(ctx context.Context, w io.Writer, cfg lab.Config, out *cli.Output, log *slog.Logger) error {
	l, err := lab.Up(ctx, cfg, log)
	if err != nil {
		return err
	}
	if err := showLab(w, l, out); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(os.Stderr, "stopping")
	return l.Down()
}

// showLab prints where everything is and what to type next.
func showLab(w io.Writer, l *lab.Lab, out *cli.Output) error {
	url, accessKey, secretKey := l.S3()
	listing := struct {
		Control   string        `json:"control"`
		S3        string        `json:"s3"`
		AccessKey string        `json:"s3_access_key"`
		SecretKey string        `json:"s3_secret_key"`
		Regions   []lab.Address `json:"regions"`
	}{l.Control(), url, accessKey, secretKey, l.Addresses()}
	return out.Show(w, listing, func(w io.Writer) error {
		if err := addressTable(w, listing.Regions); err != nil {
			return err
		}
		first := listing.Regions[0]
		_, err := fmt.Fprintf(w, `
S3 at %s, access key %s, secret key %s; control page at %s
The keys are those of a lab and guard nothing. Ctrl-C stops the lab; nothing is lost.

Try, in another terminal:
  export EVENKEEL_SERVER=%s EVENKEEL_LAB=%s   # not needed with the default ports
  evenkeel put session s-1 '{"user":"ada"}'
  evenkeel get session s-1
  evenkeel status
  kcat -b %s -L
  evenkeel-lab stop %s
`, url, accessKey, secretKey, listing.Control, first.API, listing.Control, first.Kafka, listing.Regions[len(listing.Regions)-1].Region)
		return err
	})
}

func addressTable(w io.Writer, addresses []lab.Address) error {
	var rows [][]string
	for _, a := range addresses {
		rows = append(rows, []string{a.Region.String(), a.State, strings.Join(append([]string{a.API}, a.More...), " "), a.Kafka, a.Bucket})
	}
	return term.Table(w, []string{"REGION", "STATE", "API", "KAFKA", "BUCKET"}, rows)
}

// defaultControl is where a lab with default ports has its control page.
func defaultControl() string {
	if address := os.Getenv("EVENKEEL_LAB"); address != "" {
		return strings.TrimSuffix(address, "/")
	}
	return fmt.Sprintf("http://127.0.0.1:%d", lab.DefaultBasePort+lab.ControlOffset)
}

// tempDir makes a directory for a demo; its name tells what made it.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "evenkeel-demo-")
	return filepath.Clean(dir), err
}
