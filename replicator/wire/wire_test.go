package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// pair is a connection whose broker the test plays.
func pair() (*Conn, net.Conn) {
	here, there := net.Pipe()
	c := newConn(here, "broker", "test")
	c.versions[0], c.versions[3] = 13, 12
	return c, there
}

// request reads one request and returns its number, 0 if the connection has ended.
func request(there net.Conn) uint32 {
	var size [4]byte
	if _, err := io.ReadFull(there, size[:]); err != nil {
		return 0
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(there, body); err != nil {
		return 0
	}
	return binary.BigEndian.Uint32(body[4:])
}

// metadata is an answer to a metadata request, with its length and number.
func metadata(id uint32, name string) []byte {
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = 12
	resp.ClusterID = &name
	return framed(id, append([]byte{0}, resp.AppendTo(nil)...))
}

func framed(id uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	return append(binary.BigEndian.AppendUint32(b, id), body...)
}

func ask() *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	return req
}

// Many requests wait at once; answers are handed out in the order of sending, each to
// its own.
func TestAnswersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, there := pair()
		defer c.Close()
		const n = 50
		ids := make(chan uint32, n)
		go func() {
			defer close(ids)
			for range n {
				ids <- request(there)
			}
		}()
		go func() {
			for id := range ids {
				_, _ = there.Write(metadata(id, string(rune('a'+id%26))))
			}
		}()
		var mu sync.Mutex
		var got []int
		for i := range n {
			want := string(rune('a' + (i+1)%26))
			if err := c.Send(ask(), time.Second, func(a Answer) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, i)
				if a.Err != nil || *a.Response.(*kmsg.MetadataResponse).ClusterID != want {
					t.Errorf("answer %d: %+v", i, a)
				}
				a.Buffer.Release()
			}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for i, n := range got {
			if i != n {
				t.Fatalf("order %v", got)
			}
		}
		if len(got) != n {
			t.Errorf("%d of %d answers", len(got), n)
		}
	})
}

// A broker that answers what nobody asked for, or with bytes that are no answer, ends
// the connection; whoever waits is told, once, and in order.
func TestHostileAnswers(t *testing.T) {
	huge := []byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1}
	for name, test := range map[string]struct {
		answer func(id uint32) []byte
		says   string
	}{
		"another number":  {func(id uint32) []byte { return metadata(id+1, "x") }, "nobody waits"},
		"too long":        {func(uint32) []byte { return huge }, "not Kafka"},
		"negative length": {func(uint32) []byte { return []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1} }, "not Kafka"},
		"too short":       {func(uint32) []byte { return []byte{0, 0, 0, 3, 0, 0, 0, 1} }, "not Kafka"},
		"http":            {func(uint32) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, "not Kafka"},
		"no header":       {func(id uint32) []byte { return framed(id, nil) }, "header"},
		"header's tags":   {func(id uint32) []byte { return framed(id, []byte{1, 0, 0}) }, "header"},
		"cut off inside":  {func(id uint32) []byte { return framed(id, []byte{0, 0, 0}) }, ""},
		"noise":           {func(id uint32) []byte { return framed(id, append([]byte{0}, huge...)) }, ""},
		"twice":           {func(id uint32) []byte { return append(metadata(id, "x"), metadata(id, "x")...) }, "nobody waits"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, there := pair()
				go func() {
					id := request(there)
					for range 2 {
						request(there)
					}
					_, _ = there.Write(test.answer(id))
				}()
				calls := make([]int, 3)
				var failures []error
				for i := range 3 {
					if err := c.Send(ask(), time.Second, func(a Answer) {
						calls[i]++
						if (a.Err == nil) == (a.Response == nil) {
							t.Errorf("answer %d: %+v", i, a)
						}
						if a.Err != nil {
							failures = append(failures, a.Err)
						}
					}); err != nil {
						t.Fatal(err)
					}
				}
				<-c.Failed()
				synctest.Wait()
				for i, n := range calls {
					if n != 1 {
						t.Errorf("request %d was answered %d times", i, n)
					}
				}
				if len(failures) < 2 || !strings.Contains(c.Err().Error(), test.says) {
					t.Errorf("failures %v, the connection's: %v", failures, c.Err())
				}
				if err := c.Send(ask(), time.Second, func(Answer) { t.Error("called") }); err == nil {
					t.Error("a connection that has failed takes requests")
				}
				if _, err := there.Read(make([]byte, 1)); err == nil {
					t.Error("the connection is still open")
				}
			})
		})
	}
}

// A broker that does not answer in time, or does not even read, ends the connection;
// the time is that of the oldest request.
func TestTimeouts(t *testing.T) {
	t.Run("no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, there := pair()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			began := time.Now()
			answers := make(chan Answer, 2)
			for _, timeout := range []time.Duration{5 * time.Second, time.Second} {
				if err := c.Send(ask(), timeout, func(a Answer) { answers <- a }); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if a := <-answers; a.Err == nil {
					t.Errorf("%+v", a)
				}
			}
			if took := time.Since(began); took != 5*time.Second+AnswerTimeout {
				t.Errorf("given up after %v", took)
			}
		})
	})
	t.Run("answers keep it alive", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, there := pair()
			defer c.Close()
			go func() {
				for range 5 {
					id := request(there)
					time.Sleep(AnswerTimeout - time.Second)
					_, _ = there.Write(metadata(id, "x"))
				}
			}()
			for range 5 {
				if _, err := c.Call(context.Background(), ask()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Hour) // idle is no failure
			if err := c.Err(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("nobody reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := pair()
			answers := make(chan Answer, 1)
			began := time.Now()
			if err := c.Send(ask(), time.Hour, func(a Answer) { answers <- a }); err != nil {
				t.Fatal(err)
			}
			if a := <-answers; a.Err == nil || time.Since(began) > time.Minute {
				t.Errorf("%+v after %v", a, time.Since(began))
			}
		})
	})
	t.Run("the caller's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, there := pair()
			defer c.Close()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := c.Call(ctx, ask()); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
}

// Closing tells whoever waits that it was on purpose.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, there := pair()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		answers := make(chan Answer, 1)
		if err := c.Send(ask(), time.Second, func(a Answer) { answers <- a }); err != nil {
			t.Fatal(err)
		}
		c.Close()
		c.Close()
		if a := <-answers; !errors.Is(a.Err, ErrClosed) {
			t.Errorf("%+v", a)
		}
		if !errors.Is(c.Err(), ErrClosed) {
			t.Error(c.Err())
		}
	})
}

// A connection ends before its authentication does.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair()
		c.expire(0)
		c.expire(time.Minute)
		c.expire(10 * time.Minute) // another round
		time.Sleep(8 * time.Minute)
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !errors.Is(c.Err(), errExpired) {
			t.Errorf("after nine of ten minutes: %v", c.Err())
		}
		c.expire(time.Minute) // nothing to do any more
	})
}

func TestVersion(t *testing.T) {
	c, _ := pair()
	defer c.Close()
	for _, test := range []struct {
		key, most, want int16
		known           bool
	}{{0, 13, 13, true}, {0, 12, 12, true}, {0, 99, 13, true}, {74, 0, 0, false}} {
		v, err := c.Version(test.key, test.most)
		if v != test.want || (err == nil) != test.known {
			t.Errorf("request %d at most %d: %d, %v", test.key, test.most, v, err)
		}
	}
}

// Buffers come back with the size that is asked for, whatever they were before.
func TestBuffers(t *testing.T) {
	for range 3 {
		for _, size := range []int{0, 1, poolLeastBytes, firstClass, firstClass + 1, 5 << 20, 40 << 20} {
			b := newBuffer(size)
			if len(b.Bytes) != size {
				t.Fatalf("%d bytes, want %d", len(b.Bytes), size)
			}
			b.Release()
		}
	}
	(*Buffer)(nil).Release()
}

// SASL is what the client's options say, and works with a real handshake.
func TestSASL(t *testing.T) {
	before := runtime.NumGoroutine()
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "p", "secret"), kfake.Superuser("SCRAM-SHA-256", "s", "secret"), kfake.Superuser("SCRAM-SHA-512", "s", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		mechanisms []sasl.Mechanism
		says       string
	}{
		"plain":             {[]sasl.Mechanism{plain.Auth{User: "p", Pass: "secret"}.AsMechanism()}, ""},
		"scram 256":         {[]sasl.Mechanism{scram.Auth{User: "s", Pass: "secret"}.AsSha256Mechanism()}, ""},
		"scram 512":         {[]sasl.Mechanism{scram.Auth{User: "s", Pass: "secret"}.AsSha512Mechanism()}, ""},
		"the second":        {[]sasl.Mechanism{another{}, plain.Auth{User: "p", Pass: "secret"}.AsMechanism()}, ""},
		"wrong password":    {[]sasl.Mechanism{plain.Auth{User: "p", Pass: "wrong"}.AsMechanism()}, "connect"},
		"wrong in scram":    {[]sasl.Mechanism{scram.Auth{User: "s", Pass: "wrong"}.AsSha256Mechanism()}, "connect"},
		"unknown user":      {[]sasl.Mechanism{scram.Auth{User: "n", Pass: "secret"}.AsSha512Mechanism()}, "connect"},
		"none of them":      {[]sasl.Mechanism{another{}}, "UNSUPPORTED_SASL_MECHANISM"},
		"no authentication": {nil, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := kgo.NewClient(kgo.SeedBrokers(kafka.ListenAddrs()...), kgo.SASL(test.mechanisms...))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			c, err := NewDialer(client).Connect(t.Context(), kafka.ListenAddrs()[0])
			if err == nil {
				defer c.Close()
				req := kmsg.NewPtrMetadataRequest()
				if _, err = c.Call(t.Context(), req); err != nil {
					err = errors.Join(errors.New("connect"), err)
				}
			}
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
	kafka.Close()
	for wait := time.Millisecond; runtime.NumGoroutine() > before; wait *= 2 {
		if wait > 5*time.Second {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(wait) // until what was closed has ended
	}
}

// another is a mechanism that no broker has.
type another struct{}

func (another) Name() string { return "ANOTHER" }

func (another) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	return nil, nil, errors.New("not expected")
}

// A broker that cannot be reached, hangs up or does not answer the greeting is no
// connection.
func TestConnectFails(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"hangs up": func(c net.Conn) { c.Close() },
		"silent":   func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"noise":    func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.9\r\n")); _, _ = io.Copy(io.Discard, c) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &Dialer{dial: func(context.Context, string, string) (net.Conn, error) {
					here, there := net.Pipe()
					go serve(there)
					return here, nil
				}}
				began := time.Now()
				if c, err := d.Connect(context.Background(), "nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
					t.Errorf("%v, %v", c, err)
				}
				if took := time.Since(began); took > ConnectTimeout {
					t.Errorf("took %v", took)
				}
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		d := &Dialer{dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }}
		if _, err := d.Connect(t.Context(), "nowhere"); err == nil {
			t.Error("connected")
		}
	})
}
