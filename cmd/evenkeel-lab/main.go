// Command evenkeel-lab runs whole regions in one process: embedded Kafka
// clusters, an S3 server and the pipeline's nodes, for trying Evenkeel out, for
// drills and for tests.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
)

func main() { os.Exit(cli.Main(root(), os.Args[1:])) }

func root() *cobra.Command {
	var out cli.Output
	c := cli.Group("evenkeel-lab", "Three regions of Evenkeel in one process",
		upCommand(&out), demoCommand(), benchCommand(), benchLinkCommand(), mirrorCommand(), benchApplyCommand(), benchApplySubjectCommand(), benchBackupCommand(),
		regionsCommand(&out),
		changeCommand(&out, "stop", "Stop one region: its Kafka cluster and its node"),
		changeCommand(&out, "start", "Start a stopped region"),
		changeCommand(&out, "wipe", "Delete the state of a stopped region; its logs stay"),
		changeCommand(&out, "restore", "Restore the state of a stopped region from its bucket's newest backup"),
	)
	c.Long = c.Short + ".\n\n" + cli.ExitCodes
	out.Flag(c)
	return c
}
