// Command evenkeel is the daemon of a region's node and the operator's tool: it
// runs a node, and calls the API of one that runs.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

func main() { os.Exit(cli.Main(root(), os.Args[1:])) }

func root() *cobra.Command {
	t := &tool{}
	c := cli.Group("evenkeel", "Disaster recovery for event-sourced services on Kafka",
		t.runCommand(),
		t.statusCommand(), t.lagCommand(), t.shardsCommand(), t.checkCommand(),
		t.putCommand(), t.patchCommand(), t.appendCommand(), t.resolveCommand(), t.deleteCommand(), t.getCommand(), t.scanCommand(), t.watchCommand(), t.historyCommand(), t.loadCommand(),
		t.linksCommand(),
		t.modelsCommand(),
		t.backupCommand(), t.keysCommand(), t.drillCommand(),
		t.restoreCommand(),
	)
	c.Version = api.Software
	c.SetVersionTemplate("{{.Version}}\n")
	c.Long = c.Short + `.

Commands other than run, keys and those with --config call the API of a running node; --server or
EVENKEEL_SERVER says where it is.

` + cli.ExitCodes
	c.PersistentFlags().StringVar(&t.server, "server", defaultServer(), "address of a node's API; also EVENKEEL_SERVER")
	t.out.Flag(c)
	return c
}
