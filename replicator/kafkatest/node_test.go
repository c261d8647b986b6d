//go:build kafka

package kafkatest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a node needs in its own region besides what its links need there, as README.md
// says it.
var grantsOfNode = []string{
	"CREATE topic TOPIC", "READ topic TOPIC", "WRITE topic TOPIC", "DESCRIBE_CONFIGS topic TOPIC",
	"CREATE topic evenkeel.*", "READ topic evenkeel.*", "WRITE topic evenkeel.*", "DESCRIBE_CONFIGS topic evenkeel.*",
	"READ group GROUP",
}

// A node's configuration has all that a link needs: a certificate for the one region, a
// password for the other. Nobody is told the password.
func testNode(t *testing.T, source, dest *secured) {
	w := securedWorld(t, source, dest)
	source.create("evenkeel.attestations", 1) // which that region's own node would do
	source.grant("User:CN=node", linkGrants(w, grantsAtSource, groupGrantsAtSource, []string{"READ topic evenkeel.attestations", "DESCRIBE_CONFIGS topic evenkeel.attestations"})...)
	dest.grant("User:node", linkGrants(w, grantsAtDest, groupGrantsAtDest, grantsOfNode)...)
	w.source.writeAll(w.topic, 20)
	w.commit(w.source, w.topic+"-group", w.topic, map[int32]int64{0: 5})
	source.grant("User:CN=node", "DESCRIBE group "+w.topic+"-group")
	dest.grant("User:node", "READ group "+w.topic+"-group")

	n := newNode(w, source, dest)
	n.start(t)
	w.await("all is mirrored", patience, func() error {
		topics, err := w.dest.admin.ListTopics(w.dest.ctx(), w.mirror())
		switch {
		case err != nil:
			return err
		case !topics.Has(w.mirror()):
			return fmt.Errorf("there is no mirror\n%s", n.said())
		}
		return w.mirrored(w.source.ends(w.topic))
	})
	w.awaitCommitted(w.topic+"-group", w.mirror(), map[int32]int64{0: 5})
	w.sameOffsets()
	w.await("the link has no problems", patience, func() error {
		links, err := n.links()
		if err == nil && (len(links) != 1 || !links[0].Running || links[0].Error != "" || len(links[0].Failing) > 0) {
			err = fmt.Errorf("%+v", links)
		}
		return err
	})

	if err := os.WriteFile(n.file("password"), []byte("not-the-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.stop(t)
	out, err := exec.Command(n.binary, "run", "--config", n.file("node.yaml")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "SASL_AUTHENTICATION_FAILED") || !strings.Contains(string(out), "us-west-1") {
		t.Errorf("with a wrong password: %v: %s", err, out)
	}
	t.Logf("it says: %s", out)
	for _, password := range []string{dest.by("node", "").password, "not-the-password", "the-secret-of-node"} {
		if password != "" && strings.Contains(n.said()+string(out), password) {
			t.Errorf("the password is told: %s%s", n.said(), out)
		}
	}
}

// node is a node of one region in a process of its own, as its users start it.
type node struct {
	dir    string
	binary string
	url    string
	cmd    *exec.Cmd
}

func newNode(w *world, source, dest *secured) *node {
	w.Helper()
	n := &node{dir: w.TempDir()}
	n.binary = n.file("evenkeel")
	if out, err := exec.Command("go", "build", "-o", n.binary, "../../cmd/evenkeel").CombinedOutput(); err != nil {
		w.Fatalf("build: %v\n%s", err, out)
	}
	listen := address(newPorts(w.T).client)
	n.url = "http://" + listen
	as, certificate := dest.addUser("node"), source.ca.issue("node")
	files := map[string]string{
		"password": as.password + "\n",
		"node.yaml": fmt.Sprintf(`
region: %s
data_dir: %s
partitions: %d
group: %s
api: {listen: %q}
streams: {session: {topic: %s}}
regions:
  %s:
    api: http://127.0.0.1:9
    kafka:
      seeds: [%q]
      tls: {enabled: true, ca_file: %s, cert_file: %s, key_file: %s}
  %s:
    kafka:
      seeds: [%q]
      tls: {enabled: true, ca_file: %s}
      sasl: {mechanism: scram-sha-512, username: node, password_file: %s}
links: {groups: [%s-group]}
`, dest.region, n.file("data"), partitions, w.topic, listen, w.topic,
			source.region, address(source.node.ports.other), source.ca.file, certificate.cert, certificate.key,
			dest.region, dest.address, dest.ca.file, n.file("password"), w.topic),
	}
	for name, text := range files {
		if err := os.WriteFile(n.file(name), []byte(text), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	return n
}

func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

func (n *node) start(t *testing.T) {
	t.Helper()
	log, err := os.Create(n.file("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.cmd = exec.Command(n.binary, "run", "--config", n.file("node.yaml"))
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
}

// stop ends the node; a second time it does nothing.
func (n *node) stop(t *testing.T) {
	t.Helper()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(os.Interrupt) // it may have ended
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = n.cmd.Wait() // what it says is in its log
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		_ = n.cmd.Process.Kill()
		<-ended
		t.Errorf("the node does not end:\n%s", n.said())
	}
	n.cmd = nil
}

func (n *node) said() string {
	text, _ := os.ReadFile(n.file("log")) // for a message only
	return string(text)
}

// linkRow is what the command line tells about a link.
type linkRow struct {
	Running bool              `json:"running"`
	Error   string            `json:"error"`
	Failing []json.RawMessage `json:"failing"`
}

func (n *node) links() (rows []linkRow, err error) {
	out, err := exec.Command(n.binary, "--server", n.url, "links", "list", "-o", "json").Output()
	if err != nil {
		return nil, errors.Join(err, errors.New(n.said()))
	}
	var list struct {
		Links []linkRow `json:"links"`
	}
	err = json.Unmarshal(out, &list)
	return list.Links, err
}
