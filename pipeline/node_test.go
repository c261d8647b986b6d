package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// These tests run nodes on real networks and disks.

// nodeConfig is that of a node on loopback.
func nodeConfig(t *testing.T, kafka string) *config.Config {
	t.Helper()
	c := config.Default()
	c.Region, c.DataDir, c.Partitions = us, filepath.Join(t.TempDir(), "node"), partitions
	c.API.Listen = "127.0.0.1:0"
	c.Streams = map[events.Stream]config.Stream{"session": {Topic: "session", Merge: "lww"}}
	c.Regions = map[events.Region]config.Region{us: {Incarnation: 1, Kafka: config.Kafka{Seeds: []string{kafka}}}}
	c.Limits.StopTimeout = time.Second
	return &c
}

func cluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	return kafka
}

func startNode(t *testing.T, cfg *config.Config) (*pipeline.Node, *api.Client) {
	t.Helper()
	node, err := pipeline.StartNode(t.Context(), cfg, pipeline.Parts{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient("http://" + node.Address())
	if err != nil {
		t.Fatal(err)
	}
	return node, client
}

// get fetches a page of a node until it has what is wanted.
func get(t *testing.T, url string, status int, want string) string {
	t.Helper()
	for range 1_000 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == status && strings.Contains(string(text), want) {
			return string(text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s does not become HTTP %d with %q", url, status, want)
	return ""
}

func TestNode(t *testing.T) {
	cfg := nodeConfig(t, cluster(t).ListenAddrs()[0])
	node, client := startNode(t, cfg)
	url := "http://" + node.Address()
	get(t, url+"/healthz", http.StatusOK, "ok")
	get(t, url+"/readyz", http.StatusOK, "ready")
	if _, err := client.Put(t.Context(), api.PutParams{Stream: "session", Key: api.Bytes("k"), Value: api.Bytes("v")}); err != nil {
		t.Fatal(err)
	}
	page := get(t, url+"/metrics", http.StatusOK, `evenkeel_fold_events_total{region="us-east-1"} 1`)
	for _, want := range []string{
		`evenkeel_api_events_total{region="us-east-1"} 1`, `evenkeel_state_slices{region="us-east-1"} 1`,
		`evenkeel_state_parked{region="us-east-1"} 0`, `evenkeel_state_logs_blocked{region="us-east-1"} 0`,
		`evenkeel_fold_parked_total{region="us-east-1"} 0`, "go_goroutines",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for range 2 {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Status(t.Context()); events.KindOf(err) != events.KindNotReady {
		t.Errorf("after the stop: %v", err)
	}
	cfg.API.Listen = node.Address() // the port and the state are free again
	node, client = startNode(t, cfg)
	if _, err := client.Get(t.Context(), api.GetParams{Stream: "session", Key: api.Bytes("k")}); err != nil {
		t.Error(err)
	}
	if err := node.Stop(); err != nil {
		t.Error(err)
	}
}

// A port in use is told before anything else is touched.
func TestNodePortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := nodeConfig(t, "127.0.0.1:1")
	cfg.API.Listen = l.Addr().String()
	_, err = pipeline.StartNode(t.Context(), cfg, pipeline.Parts{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "api.listen") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

// A start that fails gives the port back.
func TestNodeStartFails(t *testing.T) {
	kafka := cluster(t)
	if err := kafka.CreateTopic("session", 7, nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := nodeConfig(t, kafka.ListenAddrs()[0])
	cfg.API.Listen = l.Addr().String()
	l.Close()
	for range 2 {
		_, err := pipeline.StartNode(t.Context(), cfg, pipeline.Parts{Log: slog.New(slog.DiscardHandler)})
		wantKind(t, err, events.KindRefused, "7 partitions")
	}
}

// A second process on the same data directory is kept out.
func TestNodeStateInUse(t *testing.T) {
	kafka := cluster(t).ListenAddrs()[0]
	cfg := nodeConfig(t, kafka)
	node, _ := startNode(t, cfg)
	defer func() {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	}()
	_, err := pipeline.StartNode(t.Context(), cfg, pipeline.Parts{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), cfg.DataDir) || !regexp.MustCompile("in use|lock held").MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
}

// The data directory cannot be made.
func TestNodeBadDataDir(t *testing.T) {
	cfg := nodeConfig(t, cluster(t).ListenAddrs()[0])
	cfg.DataDir = "/dev/null/node"
	_, err := pipeline.StartNode(t.Context(), cfg, pipeline.Parts{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "/dev/null/node") {
		t.Errorf("got %v", err)
	}
}

// A stop ends calls that wait for a Kafka that does not answer; their callers
// are told.
func TestNodeStopsUnderCalls(t *testing.T) {
	kafka := cluster(t)
	cfg := nodeConfig(t, kafka.ListenAddrs()[0])
	node, client := startNode(t, cfg)
	get(t, "http://"+node.Address()+"/readyz", http.StatusOK, "ready")
	held, hold := make(chan bool, 100), make(chan bool)
	kafka.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		kafka.KeepControl()
		held <- true
		kafka.SleepControl(func() { <-hold })
		return nil, nil, false
	})
	defer close(hold)
	told := make(chan error, 3)
	go func() {
		_, err := client.Put(context.Background(), api.PutParams{Stream: "session", Key: api.Bytes("k"), Value: api.Bytes("v")})
		told <- err
	}()
	<-held
	go func() {
		p := batch("", 1, 10)
		_, err := client.Load(context.Background(), p)
		told <- err
	}()
	go func() {
		_, err := client.Load(context.Background(), batch("", 11, 10)) // waits for its turn
		told <- err
	}()
	if err := node.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	for range 3 {
		wantKind(t, <-told, events.KindNotReady)
	}
}

// The bucket's server says no: the error names bucket and key of the
// configuration, before anything is started.
func TestNodeWithoutS3(t *testing.T) {
	s3, err := s3server.Start(s3server.Config{Dir: t.TempDir(), Buckets: []string{"there"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Close()
	accessKey, secretKey := s3.Credentials()
	for name, c := range map[string]struct{ bucket, secret, part string }{
		"missing":       {"nowhere", secretKey, "does not exist"},
		"wrong secrets": {"there", "wrong", "access refused"},
	} {
		t.Run(name, func(t *testing.T) {
			bucket, err := objstore.NewS3(t.Context(), objstore.S3Config{
				Bucket: c.bucket, Endpoint: s3.URL(), Region: s3server.Region, PathStyle: true,
				Credentials: credentials.NewStaticCredentialsProvider(accessKey, c.secret, ""),
			})
			if err != nil {
				t.Fatal(err)
			}
			cfg := nodeConfig(t, "127.0.0.1:1")
			_, err = pipeline.StartNode(t.Context(), cfg, pipeline.Parts{Log: slog.New(slog.DiscardHandler), Bucket: bucket})
			for _, part := range []string{"backups of us-east-1", c.bucket, c.part} {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not say %q", err, part)
				}
			}
			if strings.Contains(fmt.Sprint(err), secretKey) {
				t.Error("the error holds the key")
			}
		})
	}
}
