package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// tool is what the commands share.
type tool struct {
	server string
	out    cli.Output
}

func defaultServer() string {
	if server := os.Getenv("EVENKEEL_SERVER"); server != "" {
		return server
	}
	return "http://127.0.0.1:7400"
}

func (t *tool) client() (*api.Client, error) { return api.NewClient(t.server) }

// peers makes a client of every region's node. The node that is asked knows
// their addresses.
func (t *tool) peers(ctx context.Context) (own events.Region, clients map[events.Region]*api.Client, err error) {
	client, err := t.client()
	if err != nil {
		return "", nil, err
	}
	s, err := client.Status(ctx)
	if err != nil {
		return "", nil, err
	}
	clients = map[events.Region]*api.Client{}
	for name, address := range s.Regions {
		if name == s.Region {
			clients[name] = client // the address that is known to work
			continue
		}
		if clients[name], err = api.NewClient(address); err != nil {
			return "", nil, fmt.Errorf("region %s: %w", name, err)
		}
	}
	return s.Region, clients, nil
}

// ago writes how long ago a time was.
func ago(at time.Time) string { return time.Since(at).Round(time.Second).String() }
