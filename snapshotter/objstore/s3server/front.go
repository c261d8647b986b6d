package s3server

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// front accepts TCP connections and passes their bytes to a unix socket.
type front struct {
	listener net.Listener
	socket   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

// newFront takes over listener until close. Clients wait until open.
func newFront(listener net.Listener, socket string) *front {
	return &front{listener: listener, socket: socket, conns: make(map[net.Conn]struct{})}
}

func (f *front) open() { f.wg.Go(f.accept) }

func (f *front) addr() string { return f.listener.Addr().String() }

func (f *front) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of file descriptors, say
			continue
		}
		f.wg.Go(func() { f.serve(client) })
	}
}

// serve passes bytes both ways until one side ends, then ends the other.
func (f *front) serve(client net.Conn) {
	defer client.Close()
	gateway, err := net.Dial("unix", f.socket)
	if err != nil {
		return
	}
	defer gateway.Close()
	if !f.track(client, gateway) {
		return
	}
	defer f.untrack(client, gateway)

	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(gateway, client) // either end closing is the normal end
		_ = gateway.Close()
	})
	_, _ = io.Copy(client, gateway)
	_ = client.Close()
	up.Wait()
}

func (f *front) track(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	for _, c := range conns {
		f.conns[c] = struct{}{}
	}
	return true
}

func (f *front) untrack(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

// close frees the address and cuts every connection.
func (f *front) close() error {
	err := f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}
