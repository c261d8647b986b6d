package wire

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
)

// ConnectTimeout bounds dialing, TLS and SASL together.
const ConnectTimeout = 10 * time.Second

// Dialer opens connections to the brokers of one cluster.
type Dialer struct {
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	sasls    []sasl.Mechanism
	clientID string
}

// NewDialer makes a dialer that does what the client's options say.
func NewDialer(client *kgo.Client) *Dialer {
	d := &Dialer{}
	d.dial, _ = client.OptValue(kgo.Dialer).(func(context.Context, string, string) (net.Conn, error))
	d.sasls, _ = client.OptValue(kgo.SASL).([]sasl.Mechanism)
	d.clientID, _ = client.OptValue(kgo.ClientID).(string)
	return d
}

// Connect opens a connection to a broker, and authenticates.
func (d *Dialer) Connect(ctx context.Context, address string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	nc, err := d.dial(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c := newConn(nc, address, d.clientID)
	if err := d.greet(ctx, c); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return c, nil
}

func (d *Dialer) greet(ctx context.Context, c *Conn) error {
	req := kmsg.NewPtrApiVersionsRequest() // version 0: every broker understands it
	resp, err := call[*kmsg.ApiVersionsResponse](ctx, c, req)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	c.learn(resp)
	if len(d.sasls) == 0 {
		return nil
	}
	return d.authenticate(ctx, c)
}

// authenticate agrees on a mechanism and goes through its challenges (KIP-152).
func (d *Dialer) authenticate(ctx context.Context, c *Conn) error {
	mechanism := d.sasls[0]
	resp, err := d.handshake(ctx, c, mechanism)
	if err != nil {
		return err
	}
	if kerr.ErrorForCode(resp.ErrorCode) == kerr.UnsupportedSaslMechanism {
		if mechanism = d.supported(resp.SupportedMechanisms); mechanism == nil {
			return fmt.Errorf("%w: the broker has %v", kerr.UnsupportedSaslMechanism, resp.SupportedMechanisms)
		}
		if resp, err = d.handshake(ctx, c, mechanism); err != nil {
			return err
		}
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	session, message, err := mechanism.Authenticate(ctx, c.address)
	if err != nil {
		return err
	}
	for done := false; !done || len(message) > 0; {
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.SASLAuthBytes = message
		answer, err := call[*kmsg.SASLAuthenticateResponse](ctx, c, req)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			if answer.ErrorMessage != nil {
				return fmt.Errorf("%w: %s", err, *answer.ErrorMessage)
			}
			return err
		}
		message = nil
		if !done {
			if done, message, err = session.Challenge(answer.SASLAuthBytes); err != nil {
				return err
			}
		}
		c.expire(time.Duration(answer.SessionLifetimeMillis) * time.Millisecond)
	}
	return nil
}

func (d *Dialer) handshake(ctx context.Context, c *Conn, m sasl.Mechanism) (*kmsg.SASLHandshakeResponse, error) {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = m.Name()
	return call[*kmsg.SASLHandshakeResponse](ctx, c, req)
}

func (d *Dialer) supported(names []string) sasl.Mechanism {
	for _, m := range d.sasls {
		for _, name := range names {
			if m.Name() == name {
				return m
			}
		}
	}
	return nil
}

// call sends a request and waits for the answer, which must be of the type R.
func call[R kmsg.Response](ctx context.Context, c *Conn, req kmsg.Request) (R, error) {
	var none R
	resp, err := c.Call(ctx, req)
	if err != nil {
		return none, err
	}
	return resp.(R), nil
}
