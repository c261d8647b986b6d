//go:build kafka

package kafkatest

import (
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
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/evenkeel/evenkeel/events"
)

// authority is a certificate authority of the test's own.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	template := a.template("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	a.do(err)
	a.cert, err = x509.ParseCertificate(der)
	a.do(err)
	a.file = a.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func (a *authority) do(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.do(err)
	return key
}

func (a *authority) template(name string) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	a.do(err)
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func (a *authority) write(name string, text []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	a.do(os.WriteFile(path, text, 0o600))
	return path
}

// credentials are a certificate and its key, in PEM files; both has the two in one,
// as Kafka's keystores do.
type credentials struct{ cert, key, both string }

// issue makes a certificate for brokers at 127.0.0.1 as well as for clients.
func (a *authority) issue(name string) credentials {
	a.t.Helper()
	template := a.template(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	key := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	a.do(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	a.do(err)
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	return credentials{
		cert: a.write(name+".cert.pem", certText), key: a.write(name+".key.pem", keyText),
		both: a.write(name+".pem", append(keyText, certText...)),
	}
}

// security is how a client shows who it is: by a password, or by a certificate, or not
// at all.
type security struct {
	authority      *authority // whom it trusts
	user, password string
	credentials    credentials
	certified      string // address where the certificate counts, for kcat
}

func (s *security) opts() []kgo.Opt {
	pool := x509.NewCertPool()
	pool.AddCert(s.authority.cert)
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	opts := []kgo.Opt{kgo.DialTLSConfig(c)}
	if s.credentials.cert != "" {
		pair, err := tls.LoadX509KeyPair(s.credentials.cert, s.credentials.key)
		s.authority.do(err)
		c.Certificates = []tls.Certificate{pair}
	}
	if s.user != "" {
		opts = append(opts, kgo.SASL(scram.Auth{User: s.user, Pass: s.password}.AsSha512Mechanism()))
	}
	return opts
}

// kcat is how kcat comes to the cluster: by certificate, as the one in Debian does not
// have SCRAM as brokers have wanted it since CVE-2024-56128. It does not find addresses in
// certificates either; that links do is tested otherwise.
func (s *security) kcat() []string {
	return []string{
		"-b", s.certified, "-X", "security.protocol=ssl", "-X", "ssl.endpoint.identification.algorithm=none",
		"-X", "ssl.ca.location=" + s.authority.file,
		"-X", "ssl.certificate.location=" + s.credentials.cert, "-X", "ssl.key.location=" + s.credentials.key,
	}
}

const (
	admin         = "admin"
	adminPassword = "the-secret-of-admin"
)

// secured is a region's cluster that knows who asks, and lets nobody do what no ACL
// allows.
type secured struct {
	*cluster // as its administrator
	ca       *authority
	node     *broker
}

// newSecured starts a cluster of one broker. Clients come by password at one port,
// by certificate at another.
func newSecured(t *testing.T, r events.Region) *secured {
	t.Helper()
	s := &secured{ca: newAuthority(t)}
	own := s.ca.issue("broker")
	nodes := ownBrokers(t, 1, func(b *broker) []string {
		listeners := "SASL://" + address(b.ports.client) + ",TLS://" + address(b.ports.other)
		return []string{
			"listeners=" + listeners + ",CONTROLLER://" + address(b.ports.controller),
			"advertised.listeners=" + listeners,
			"listener.security.protocol.map=SASL:SASL_SSL,TLS:SSL,CONTROLLER:SSL",
			"inter.broker.listener.name=TLS",
			"ssl.keystore.type=PEM", "ssl.keystore.location=" + own.both,
			"ssl.truststore.type=PEM", "ssl.truststore.location=" + s.ca.file,
			"listener.name.tls.ssl.client.auth=required", "listener.name.controller.ssl.client.auth=required",
			"sasl.enabled.mechanisms=SCRAM-SHA-512",
			"listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users=User:" + admin + ";User:CN=" + admin + ";User:CN=broker",
			"allow.everyone.if.no.acl.found=false",
			"offsets.topic.replication.factor=1",
			"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
		}
	}, "SCRAM-SHA-512=[name="+admin+",password="+adminPassword+"]")
	s.node = nodes[0]
	s.node.start()
	as := s.by(admin, adminPassword)
	as.credentials, as.certified = s.ca.issue(admin), address(s.node.ports.other)
	awaitServing(t, nodes, append(as.opts(), kgo.SeedBrokers(address(s.node.ports.client))))
	s.cluster = clusterAt(t, r, address(s.node.ports.client), 1, as)
	return s
}

// in is the same cluster for a test of its own.
func (s *secured) in(t *testing.T) *secured {
	t.Helper()
	return &secured{cluster: clusterAt(t, s.region, s.address, 1, s.security), ca: s.ca, node: s.node}
}

// by is a client with a password.
func (s *secured) by(user, password string) *security {
	return &security{authority: s.ca, user: user, password: password}
}

// addUser makes a user, and returns how it comes to the cluster.
func (s *secured) addUser(name string) *security {
	s.t.Helper()
	password := "the-secret-of-" + name
	done, err := s.admin.AlterUserSCRAMs(s.ctx(), nil, []kadm.UpsertSCRAM{
		{User: name, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password},
	})
	s.do(err)
	for _, d := range done {
		s.do(d.Err)
	}
	return s.by(name, password)
}

// as is the same cluster for another client, who comes by password.
func (s *secured) as(who *security) *cluster {
	s.t.Helper()
	return clusterAt(s.t, s.region, s.address, 1, who)
}

// asCertified is the same cluster for a client who comes by certificate.
func (s *secured) asCertified(name string) *cluster {
	s.t.Helper()
	return clusterAt(s.t, s.region, address(s.node.ports.other), 1, &security{authority: s.ca, credentials: s.ca.issue(name)})
}
