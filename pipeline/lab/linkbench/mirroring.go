package linkbench

import (
	"context"
	"path/filepath"
	"time"
)

// mirroring is a mirroring process, with the proxy that makes its source distant.
type mirroring struct {
	*process
	proxy *Proxy // nil if the source is near
}

func (m *mirroring) stop() {
	m.process.stop()
	if m.proxy != nil {
		m.proxy.Close()
	}
}

// startMirror starts a mirroring process; cfg lacks only the addresses.
func (b *bench) startMirror(ctx context.Context, cfg MirrorConfig, rtt time.Duration, name string) (_ *mirroring, err error) {
	m := &mirroring{}
	cfg.Source, cfg.Dest = b.clusters.source.address, b.clusters.dest.address
	if rtt > 0 {
		cfg.Source = b.clusters.farAddress
		if m.proxy, err = StartProxy(ctx, b.clusters.farAddress, b.clusters.farListener, rtt/2); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				m.proxy.Close()
			}
		}()
	}
	libs, err := b.clusters.libs()
	if err != nil {
		return nil, err
	}
	prefix := filepath.Join(b.logs, name+"-"+cfg.System)
	cmd, err := mirrorCommand(cfg, libs, prefix)
	if err != nil {
		return nil, err
	}
	m.process, err = startProcess(cmd, prefix+".log")
	return m, err
}
