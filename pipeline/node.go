package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/telemetry"
)

// Node is a Region with its API served over HTTP.
type Node struct {
	*Region
	listener net.Listener
	server   *http.Server
	handler  *api.Handler
	metrics  prometheus.Gatherer
	served   chan error
	stopNode func() error // once
}

// StartNode starts a region and serves its API, its health and its metrics at
// the configured address. The address is taken first, so that a port in use is
// found before anything else happens.
func StartNode(ctx context.Context, cfg *config.Config, parts Parts) (*Node, error) {
	if parts.Listen == nil {
		parts.Listen = func(network, address string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, network, address)
		}
	}
	listener, err := parts.Listen("tcp", cfg.API.Listen)
	if err != nil {
		return nil, fmt.Errorf("api of %s cannot listen (api.listen): %w", cfg.Region, err)
	}
	if parts.Address = cfg.API.Advertise; parts.Address == "" && cfg.API.ListensOnOne() {
		parts.Address = "http://" + listener.Addr().String()
	}
	registry := telemetry.NewRegistry()
	parts.Registry = prometheus.WrapRegistererWith(prometheus.Labels{"region": cfg.Region.String()}, registry)
	region := NewRegion(cfg, parts)
	if err := region.Start(ctx); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	n := &Node{Region: region, listener: listener, metrics: registry, served: make(chan error, 1)}
	n.handler = api.NewHandler(region, cfg.API.MaxBodyBytes, region.log)
	parts.Registry.MustRegister(newAdmissionGauges(n.handler))
	n.handler.Handle("GET /metrics", telemetry.MetricsPage(registry))
	n.server = &http.Server{Handler: n.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	n.server.RegisterOnShutdown(n.handler.EndWatches)
	n.stopNode = sync.OnceValue(n.stop)
	go func() { n.served <- n.server.Serve(listener) }()
	return n, nil
}

// Metrics are what the node's page of metrics shows.
func (n *Node) Metrics() prometheus.Gatherer { return n.metrics }

// Address is where the API listens.
func (n *Node) Address() string { return n.listener.Addr().String() }

// Stop answers the calls under way for half of the configured time, then ends
// everything. It may be called again.
func (n *Node) Stop() error { return n.stopNode() }

func (n *Node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Limits.StopTimeout/2)
	defer cancel()
	err := n.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		n.log.Warn("calls under way are cut off")
		err = n.server.Close()
	}
	if served := <-n.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, n.handler.Close(), n.Region.Stop())
}
