package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/inflate"
)

// ClientOpts is how a client connects: seed brokers, TLS and SASL, and nothing
// else. Certificates are read anew with each call. The error is of kind
// events.KindInvalid and names the file.
func (k Kafka) ClientOpts() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(k.Seeds...)}
	if k.TLS.Enabled {
		c, err := k.TLS.clientConfig()
		if err != nil {
			return nil, events.Errorf(events.KindInvalid, "kafka: tls: %w", err)
		}
		opts = append(opts, kgo.DialTLSConfig(c))
	}
	if k.SASL.Mechanism != "" {
		m, err := k.SASL.mechanism()
		if err != nil {
			return nil, events.Errorf(events.KindInvalid, "kafka: sasl: %w", err)
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

// metadataMinAge is how soon a client asks again where partitions are when it
// was told wrong: after a broker's restart every such wait is time without data.
const metadataMinAge = 250 * time.Millisecond

// KafkaOpts are the options of a client of a region's cluster, and more.
func (c *Config) KafkaOpts(r events.Region, more ...kgo.Opt) ([]kgo.Opt, error) {
	opts, err := c.Regions[r].Kafka.ClientOpts()
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", r, err)
	}
	opts = append(opts, kgo.ClientID("evenkeel"), kgo.MetadataMinAge(metadataMinAge), kgo.MaxDecompressBatchBytes(int(c.Limits.MaxBatchBytes)))
	return append(opts, more...), nil
}

// RoomOpts are the options of a client that reads much: what it has fetched and nobody has polled yet
// takes at most so many bytes of memory, but for two batches of each broker. They are for one client.
func (c *Config) RoomOpts(most int64) []kgo.Opt { return inflate.Opts(most, c.Limits.MaxBatchBytes) }

// The bounds of Limits.MaxBatchBytes. A batch must be able to hold one event of the largest size.
const (
	DefaultBatchBytes = 128 << 20
	minBatchBytes     = 2 * events.MaxValueBytes
	maxBatchBytes     = 1 << 30
)

const (
	// ProducerBytesMost is how much memory what waits for Kafka to be written has; beyond
	// that writers are turned away. Enough for the records of several loads, and so are
	// producerRecordsMost.
	ProducerBytesMost   = 64 << 20
	producerRecordsMost = 400_000

	// With the default limit of a value a batch stays below the 1,048,588 bytes
	// that brokers take by default.
	batchOverheadBytes = 48_000 // largest key, headers, framing
	batchLeastBytes    = 1_000_000
)

// ProducerOpts are the options of whoever writes events.
func (c *Config) ProducerOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // events are stamped with a context of their partition
		kgo.ProducerBatchMaxBytes(int32(max(c.Limits.MaxValueBytes+batchOverheadBytes, batchLeastBytes))),
		kgo.ProducerLinger(0),
		kgo.MaxBufferedBytes(ProducerBytesMost),
		kgo.MaxBufferedRecords(producerRecordsMost),
	}
}

func (t TLS) clientConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pool, err := readAuthorities(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	if t.CertFile != "" {
		pair, err := readCertificate(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func readAuthorities(path string) (*x509.CertPool, error) {
	text, err := readAgain(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}

func readCertificate(certPath, keyPath string) (tls.Certificate, error) {
	cert, err := readAgain(certPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readAgain(keyPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s with the key %s: %w", certPath, keyPath, err)
	}
	return pair, nil
}

// mechanisms are the known values of SASL.Mechanism.
var mechanisms = []string{"plain", "scram-sha-256", "scram-sha-512"}

// mechanism asks for the password anew with each connection.
func (s SASL) mechanism() (sasl.Mechanism, error) {
	if _, err := s.password(); err != nil {
		return nil, err
	}
	scramAuth := func(context.Context) (scram.Auth, error) {
		password, err := s.password()
		return scram.Auth{User: s.Username, Pass: password.Reveal()}, err
	}
	switch s.Mechanism {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := s.password()
			return plain.Auth{User: s.Username, Pass: password.Reveal()}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(scramAuth), nil
	case "scram-sha-512":
		return scram.Sha512(scramAuth), nil
	}
	return nil, fmt.Errorf("mechanism %q is unknown; there is %s", clip(s.Mechanism), strings.Join(mechanisms, ", "))
}

// password is never empty without an error.
func (s SASL) password() (Secret, error) {
	switch {
	case s.PasswordFile != "":
		text, err := readAgain(s.PasswordFile)
		if err != nil {
			return "", err
		}
		password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		if password == "" {
			return "", fmt.Errorf("%s is empty", s.PasswordFile)
		}
		return Secret(password), nil
	case s.Password != "":
		return s.Password, nil
	case s.PasswordEnv != "":
		return "", fmt.Errorf("the variable %s is not set, or empty", clip(s.PasswordEnv))
	}
	return "", fmt.Errorf("there is no password")
}

// readAgain reads a file that is read more than once, which a pipe can not be.
func readAgain(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return readFile(path)
}
