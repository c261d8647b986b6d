package config

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// certificate writes a certificate for 127.0.0.1 that is its own authority.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes}))
	return certFile, keyFile
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// cluster starts a broker that wants a client certificate and a password.
func cluster(t *testing.T, certFile, keyFile, password string) (seeds []string) {
	t.Helper()
	pair, err := readCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	authorities, err := readAuthorities(certFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities}),
		kfake.Superuser("PLAIN", "ship", password), kfake.Superuser("SCRAM-SHA-256", "ship", password), kfake.Superuser("SCRAM-SHA-512", "ship", password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func ping(t *testing.T, k Kafka) error {
	t.Helper()
	opts, err := k.ClientOpts()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(opts, kgo.RetryTimeout(5*time.Second), kgo.RequestRetries(0))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return client.Ping(ctx)
}

func TestClientOptsConnect(t *testing.T) {
	certFile, keyFile := certificate(t)
	passwordFile := filepath.Join(t.TempDir(), "password")
	write(t, passwordFile, []byte("keel\n"))
	k := Kafka{
		Seeds: cluster(t, certFile, keyFile, "keel"),
		TLS:   TLS{Enabled: true, CAFile: certFile, CertFile: certFile, KeyFile: keyFile},
	}
	for _, mechanism := range mechanisms {
		k.SASL = SASL{Mechanism: mechanism, Username: "ship", PasswordFile: passwordFile}
		if err := ping(t, k); err != nil {
			t.Errorf("%s with a password file: %v", mechanism, err)
		}
		k.SASL = SASL{Mechanism: mechanism, Username: "ship", PasswordEnv: "PW", Password: "keel"}
		if err := ping(t, k); err != nil {
			t.Errorf("%s with a password from the environment: %v", mechanism, err)
		}
		k.SASL.Password = "wrong"
		if err := ping(t, k); err == nil {
			t.Errorf("%s: a wrong password connects", mechanism)
		}
	}
	k.SASL.Password = "keel"
	k.TLS.ServerName = "elsewhere.example"
	if err := ping(t, k); err == nil {
		t.Error("a broker of another name than server_name is trusted")
	}
	k.TLS = TLS{Enabled: true, CertFile: certFile, KeyFile: keyFile}
	if err := ping(t, k); err == nil {
		t.Error("a broker whose authority is not known is trusted")
	}
}

func TestClientOptsReadAnew(t *testing.T) {
	certFile, keyFile := certificate(t)
	passwordFile := filepath.Join(t.TempDir(), "password")
	write(t, passwordFile, []byte("old"))
	k := Kafka{
		Seeds: cluster(t, certFile, keyFile, "new"),
		TLS:   TLS{Enabled: true, CAFile: certFile, CertFile: certFile, KeyFile: keyFile},
		SASL:  SASL{Mechanism: "scram-sha-512", Username: "ship", PasswordFile: passwordFile},
	}
	opts, err := k.ClientOpts()
	if err != nil {
		t.Fatal(err)
	}
	write(t, passwordFile, []byte("new"))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		t.Errorf("a password changed after ClientOpts is not used: %v", err)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ClientOpts(); err == nil || events.KindOf(err) != events.KindInvalid {
		t.Errorf("a certificate that is gone: %v", err)
	}
}

func TestClientOptsErrors(t *testing.T) {
	certFile, keyFile := certificate(t)
	_, otherKey := certificate(t)
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	write(t, noPEM, []byte("hello"))
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, []byte("\r\n"))
	for _, tt := range []struct {
		kafka Kafka
		want  string
	}{
		{Kafka{TLS: TLS{Enabled: true, CAFile: noPEM}}, "holds no certificate in PEM"},
		{Kafka{TLS: TLS{Enabled: true, CertFile: certFile, KeyFile: otherKey}}, "private key does not match public key"},
		{Kafka{TLS: TLS{Enabled: true, CertFile: certFile, KeyFile: filepath.Dir(keyFile)}}, "is no regular file"},
		{Kafka{TLS: TLS{Enabled: true, CertFile: keyFile + ".old", KeyFile: keyFile}}, "no such file"},
		{Kafka{SASL: SASL{Mechanism: "plain", Username: "u", PasswordFile: empty}}, "is empty"},
		{Kafka{SASL: SASL{Mechanism: "plain", Username: "u", PasswordEnv: "PW"}}, "kafka: sasl: the variable PW is not set, or empty"},
		{Kafka{SASL: SASL{Mechanism: "plain", Username: "u"}}, "kafka: sasl: there is no password"},
		{Kafka{SASL: SASL{Mechanism: "gssapi", Username: "u", Password: "p"}}, `kafka: sasl: mechanism "gssapi" is unknown; there is plain, scram-sha-256, scram-sha-512`},
	} {
		_, err := tt.kafka.ClientOpts()
		if err == nil || !strings.Contains(err.Error(), tt.want) || events.KindOf(err) != events.KindInvalid {
			t.Errorf("%+v: got %v of kind %s, want %q", tt.kafka, err, events.KindOf(err), tt.want)
		}
	}
}

// What the file names must be usable before anything starts.
func TestTLSFilesAreChecked(t *testing.T) {
	certFile, keyFile := certificate(t)
	_, otherKey := certificate(t)
	in := func(tls string) string {
		return strings.Replace(minimal, "{kafka: {", "{kafka: {tls: {enabled: true, "+tls+"}, ", 1)
	}
	mustParse(t, in("ca_file: "+certFile+", cert_file: "+certFile+", key_file: "+keyFile))
	_, err := Parse("f.yaml", []byte(in("ca_file: "+keyFile+", cert_file: "+certFile+", key_file: "+otherKey)), nil)
	want := "f.yaml:4: regions.us-east-1.kafka.tls.ca_file: " + keyFile + " holds no certificate in PEM\n" +
		"f.yaml:4: regions.us-east-1.kafka.tls.cert_file: " + certFile + " with the key " + otherKey + ": tls: private key does not match public key"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestMinimumTLSVersion(t *testing.T) {
	c, err := TLS{Enabled: true, ServerName: "s"}.clientConfig()
	if err != nil || c.MinVersion != tls.VersionTLS12 || c.ServerName != "s" || c.InsecureSkipVerify {
		t.Errorf("got %v, %v", c, err)
	}
}
