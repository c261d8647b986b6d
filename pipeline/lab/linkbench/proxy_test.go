package linkbench_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/lab/linkbench"
)

const delay = 30 * time.Millisecond

// behindProxy starts a server that answers each connection by a function, and a
// proxy before it.
func behindProxy(t *testing.T, serve func(*net.TCPConn)) *linkbench.Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	p, err := linkbench.StartProxy(t.Context(), "127.0.0.1:0", l.Addr().String(), delay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// Every round trip takes twice the delay at least, also when one follows another.
func TestProxyDelaysBothWays(t *testing.T) {
	c := dial(t, behindProxy(t, echo).Address())
	for i := range 3 {
		began := time.Now()
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		var got [1]byte
		if _, err := io.ReadFull(c, got[:]); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*delay || got[0] != byte(i) {
			t.Errorf("round trip %d: byte %d after %v, want at least %v", i, got[0], took, 2*delay)
		}
	}
}

// Many writes, of all sizes, come back in order and without waiting for each other:
// a proxy that held up each one would take minutes, which the connection's
// deadline does not give it.
func TestProxyKeepsOrderAndRate(t *testing.T) {
	c := dial(t, behindProxy(t, echo).Address())
	random := rand.New(rand.NewPCG(1, 2))
	sent := make([]byte, 4<<20)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	go func() {
		for rest, i := sent, 0; len(rest) > 0; i++ {
			n := min(1+random.IntN(1+(i%2)*2000), len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				return // the reader below sees that something is missing
			}
			rest = rest[n:]
		}
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes, equal: %v, error %v; sent %d", len(got), bytes.Equal(got, sent), err, len(sent))
	}
}

// One side may end its direction and still get an answer through the other, and
// both ends are delayed as bytes are.
func TestProxyHalfClose(t *testing.T) {
	p := behindProxy(t, func(c *net.TCPConn) {
		got, err := io.ReadAll(c) // the end has to come through
		if err == nil {
			_, _ = c.Write(append([]byte("got "), got...))
		}
	})
	c := dial(t, p.Address())
	if _, err := c.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "got request" {
		t.Fatalf("got %q, %v", got, err)
	}
	if took := time.Since(began); took < 2*delay {
		t.Errorf("the ends of both directions came within %v, want at least %v", took, 2*delay)
	}
}

// What the target does to its connection, the client sees; and a target that is
// not there looks like a broker that is gone.
func TestProxyPassesEndsOn(t *testing.T) {
	reset := behindProxy(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0) // the close that follows is a reset
	})
	c := dial(t, reset.Address())
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("after a reset: %d bytes, %v", n, err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	p, err := linkbench.StartProxy(t.Context(), "127.0.0.1:0", nobody.Addr().String(), delay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if n, err := dial(t, p.Address()).Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("without a target: %d bytes, %v", n, err)
	}
}

// Close ends connections under way, with bytes in them too, and can be repeated.
func TestProxyClose(t *testing.T) {
	p := behindProxy(t, echo)
	c := dial(t, p.Address())
	if _, err := c.Write([]byte("under way")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.Close()
	p.Close()
	got, err := io.ReadAll(c)
	if len(got) > 0 && time.Since(began) < delay {
		t.Errorf("got %q before its time", got)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection is still open after Close")
	}
	if again, err := net.DialTimeout("tcp", p.Address(), time.Second); err == nil {
		again.Close()
		t.Error("it still listens after Close")
	}
}
