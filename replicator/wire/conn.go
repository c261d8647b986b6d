package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// AnswerTimeout is how long a broker may take for an answer, beyond the
	// time that a request allows it.
	AnswerTimeout = 20 * time.Second
	writeTimeout  = 20 * time.Second

	answerBytesMax = 512 << 20 // what claims to be longer is not Kafka's
	keepWriteBytes = 1 << 20   // larger write buffers are not kept
	apiVersionsKey = 18
)

// ErrClosed is why a connection that was closed on purpose does not work.
var ErrClosed = errors.New("connection closed")

// errExpired ends a connection before its authentication does.
var errExpired = errors.New("the connection's authentication expires; it is opened anew")

// Answer is what came back for a request. Exactly one of Response and Err is set.
type Answer struct {
	Response kmsg.Response
	Err      error

	// Buffer is what the response's byte slices point into. Whoever keeps any
	// of them releases it when done; whoever does not, at once.
	Buffer *Buffer
}

// Conn is one connection to a broker.
type Conn struct {
	address   string
	clientID  string
	nc        net.Conn
	formatter *kmsg.RequestFormatter
	versions  map[int16]int16 // by api key: the latest that the broker has

	writing sync.Mutex // held while a request is written
	out     []byte
	nextID  int32

	mu      sync.Mutex
	pending []pending // in the order in which they were sent
	err     error
	expiry  *time.Timer
	failed  chan struct{}
}

// pending is a request that waits for its answer.
type pending struct {
	id       int32
	req      kmsg.Request
	deadline time.Time
	done     func(Answer)
}

func newConn(nc net.Conn, address, clientID string) *Conn {
	c := &Conn{
		address: address, clientID: clientID, nc: nc,
		formatter: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)),
		versions:  map[int16]int16{apiVersionsKey: 0},
		failed:    make(chan struct{}),
	}
	go c.read()
	return c
}

// Failed is closed when the connection does not work any more; Err says why.
func (c *Conn) Failed() <-chan struct{} { return c.failed }

// Err is why the connection does not work, nil if it does.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection; what waits for an answer gets ErrClosed.
func (c *Conn) Close() { c.fail(ErrClosed) }

// Version is the version at which a request would be sent: the latest that both
// sides know, at most most.
func (c *Conn) Version(key, most int16) (int16, error) {
	known, ok := c.versions[key]
	if !ok {
		return 0, fmt.Errorf("broker %s does not know request %s", c.address, kmsg.NameForKey(key))
	}
	return min(known, most), nil
}

// Send writes a request, at its version. done is called exactly once, unless
// Send returns an error: from the connection's own goroutine, in the order of
// sending, and must not block on anything that needs further answers. The broker
// may take timeout plus AnswerTimeout.
func (c *Conn) Send(req kmsg.Request, timeout time.Duration, done func(Answer)) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.nextID++
	c.out = c.formatter.AppendRequest(c.out[:0], req, c.nextID)
	out := c.out
	if cap(c.out) > keepWriteBytes {
		defer func() { c.out = nil }()
	}
	if err := c.enqueue(pending{c.nextID, req, time.Now().Add(timeout + AnswerTimeout), done}); err != nil {
		return err
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.nc.Write(out); err != nil {
		c.fail(fmt.Errorf("write to %s: %w", c.address, err)) // done is called with it
	}
	return nil
}

// Call sends a request at the latest version that both sides know and waits for
// the answer, whose buffer is not reused.
func (c *Conn) Call(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	version, err := c.Version(req.Key(), req.MaxVersion())
	if err != nil {
		return nil, err
	}
	req.SetVersion(version)
	answers := make(chan Answer, 1)
	timeout := time.Duration(0)
	if err := c.Send(req, timeout, func(a Answer) { answers <- a }); err != nil {
		return nil, err
	}
	select {
	case a := <-answers:
		return a.Response, a.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Conn) enqueue(p pending) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.pending = append(c.pending, p)
	if len(c.pending) == 1 {
		_ = c.nc.SetReadDeadline(p.deadline)
	}
	return nil
}

func (c *Conn) learn(resp *kmsg.ApiVersionsResponse) {
	for _, k := range resp.ApiKeys {
		c.versions[k.ApiKey] = k.MaxVersion
	}
	c.versions[apiVersionsKey] = 0
}

// expire lets the connection fail before its authentication ends.
func (c *Conn) expire(lifetime time.Duration) {
	if lifetime <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expiry != nil {
		c.expiry.Stop()
	}
	if c.err == nil {
		c.expiry = time.AfterFunc(lifetime*9/10, func() { c.fail(errExpired) })
	}
}

// fail ends the connection with its first error.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.expiry != nil {
		c.expiry.Stop()
	}
	close(c.failed)
	_ = c.nc.Close() // the reader notices, and tells whoever waits
}

// read hands out answers until the connection fails.
func (c *Conn) read() {
	in := bufio.NewReaderSize(c.nc, 64<<10)
	for {
		if err := c.answer(in); err != nil {
			c.fail(fmt.Errorf("read from %s: %w", c.address, err))
			break
		}
	}
	for {
		c.mu.Lock()
		waiting, err := c.pending, c.err
		c.pending = nil
		c.mu.Unlock()
		if len(waiting) == 0 {
			return // none can join: the error is set
		}
		for _, p := range waiting {
			p.done(Answer{Err: err})
		}
	}
}

func (c *Conn) answer(in *bufio.Reader) error {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	size := int32(binary.BigEndian.Uint32(head[:4]))
	if size < 4 || size > answerBytesMax {
		return fmt.Errorf("an answer of %d bytes: this is not Kafka", size)
	}
	buf := newBuffer(int(size) - 4)
	if _, err := io.ReadFull(in, buf.Bytes); err != nil {
		buf.Release()
		return err
	}
	p, err := c.dequeue(int32(binary.BigEndian.Uint32(head[4:])))
	if err != nil {
		buf.Release()
		return err
	}
	resp, err := decode(p.req, buf.Bytes)
	if err != nil {
		buf.Release()
		p.done(Answer{Err: err})
		return err
	}
	p.done(Answer{Response: resp, Buffer: buf})
	return nil
}

func (c *Conn) dequeue(id int32) (pending, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 || c.pending[0].id != id {
		return pending{}, fmt.Errorf("an answer to request %d, for which nobody waits", id)
	}
	p := c.pending[0]
	c.pending[0] = pending{}
	c.pending = c.pending[1:]
	if len(c.pending) > 0 {
		_ = c.nc.SetReadDeadline(c.pending[0].deadline)
	} else {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	return p, nil
}

// decode reads a response body, behind the rest of its header.
func decode(req kmsg.Request, body []byte) (kmsg.Response, error) {
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != apiVersionsKey {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("a response header with tags that nobody has defined")
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}
