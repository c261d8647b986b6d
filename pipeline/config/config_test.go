package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

// minimal is the least that is valid.
const minimal = `region: us-east-1
data_dir: /var/lib/evenkeel
regions:
  us-east-1: {kafka: {seeds: ["127.0.0.1:9092"]}}
`

func mustParse(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExample(t *testing.T) {
	got, err := Load("example.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Region = "us-east-1"
	want.DataDir = "/var/lib/evenkeel"
	want.Regions = map[events.Region]Region{
		"us-east-1": {Incarnation: 1, API: "http://127.0.0.1:7400", Kafka: Kafka{Seeds: []string{"127.0.0.1:9092"}}},
		"us-west-1": {Incarnation: 1, API: "http://127.0.0.1:7401", Kafka: Kafka{Seeds: []string{"127.0.0.1:9093"}}},
	}
	want.Backup = &Backup{
		Bucket: "evenkeel-us-east-1", Region: "us-east-1", Encryption: "age", Recipients: exampleRecipients,
		Keep:     Keep{Full: 30 * 24 * time.Hour, Delta: 7 * 24 * time.Hour, Delta10m: 2 * 24 * time.Hour, Delta60s: 24 * time.Hour, Segment: 24 * time.Hour},
		KeepLast: 3, MaxChain: 48, Groups: []string{"*"}, SampleBytesPerDay: 256 << 20,
		Schedule: Schedule{Full: 24 * time.Hour, Delta: time.Minute, Drill: 24 * time.Hour, DrillCopies: 24 * time.Hour, Prune: 24 * time.Hour, Segment: 3 * time.Second, Copy: 5 * time.Minute},
	}
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("example.yaml:\n got %+v\nwant %+v", *got, want)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("what Load returned is not valid: %v", err)
	}
}

// Every key must be in the example: it is the reference.
func TestExampleHasEveryKey(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	root, syntaxErr := parseYAML(text)
	if syntaxErr != nil {
		t.Fatal(syntaxErr.message)
	}
	c := mustParse(t, string(text))
	p := &problems{places: map[string]place{}, failed: map[string]bool{}}
	(&decoder{problems: p}).config(root, c)
	eachSetting(nil, reflect.ValueOf(c).Elem(), func(s setting) {
		isFirst := !slices.Contains(s.path, "us-west-1") && (s.path[0] != "streams" || s.path[1] == "session")
		if _, ok := p.places[s.String()]; !ok && isFirst {
			t.Errorf("example.yaml lacks %s", s)
		}
	})
}

func TestDefaults(t *testing.T) {
	got := mustParse(t, minimal)
	want := Default()
	want.Region = "us-east-1"
	want.DataDir = "/var/lib/evenkeel"
	want.Regions = map[events.Region]Region{
		"us-east-1": {Incarnation: 1, API: "http://127.0.0.1:7400", Kafka: Kafka{Seeds: []string{"127.0.0.1:9092"}}},
	}
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("minimal file:\n got %+v\nwant %+v", *got, want)
	}
	if got.Limits.StopTimeout != 10*time.Second || got.Limits.MaxValueBytes != 1_000_000 || got.Partitions != 4 {
		t.Errorf("defaults changed: %+v", *got)
	}
}

func TestStreamsOfTheFileReplaceTheDefaults(t *testing.T) {
	got := mustParse(t, minimal+"streams:\n  orders: {topic: shop.orders}\n  carts:\n").Streams
	want := map[events.Stream]Stream{"orders": {Topic: "shop.orders", Merge: "lww"}, "carts": {Topic: "carts", Merge: "lww"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLinks(t *testing.T) {
	got := mustParse(t, minimal+`links:
  include: [orders, "app-*"]
  exclude: ["/app-[0-9]+/", "sessions*"]
  groups: ["*"]
  groups_exclude: [console-*]
  overrides: {retention.ms: "1000", min.insync.replicas: "2"}
  principal: "User:CN=link,O=x"
  window_bytes: 1048576
  rate_bytes_per_second: 1
`, "EVENKEEL_LINKS__WINDOW_BYTES=4294967296", "EVENKEEL_LINKS__INCLUDE=orders, app-*").Links
	want := Links{
		Include: []string{"orders", "app-*"}, Exclude: []string{"/app-[0-9]+/", "sessions*"},
		Groups: []string{"*"}, GroupsExclude: []string{"console-*"},
		Overrides: map[string]string{"retention.ms": "1000", "min.insync.replicas": "2"},
		Principal: "User:CN=link,O=x", WindowBytes: 4 << 30, RateBytesPerSecond: 1,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if def := Default().Links; def.WindowBytes != replicator.DefaultWindowBytes {
		t.Errorf("the default window has %d bytes, that of package replicator %d", def.WindowBytes, int64(replicator.DefaultWindowBytes))
	}
}

func TestAliases(t *testing.T) {
	c := mustParse(t, `
region: a
data_dir: /d
regions:
  a: {kafka: {seeds: ["a:9092"], sasl: &login {mechanism: plain, username: u, password_env: PW}}}
  b: {api: "http://b", kafka: {seeds: ["b:9092"], sasl: *login}}
`, "PW=hunter2", "EVENKEEL_REGIONS__B__KAFKA__SASL__USERNAME=v")
	a, b := c.Regions["a"].Kafka.SASL, c.Regions["b"].Kafka.SASL
	if a.Username != "u" || b.Username != "v" || b.Mechanism != "plain" || b.Password.Reveal() != "hunter2" {
		t.Errorf("got usernames %q and %q, mechanism %q, same password %v", a.Username, b.Username, b.Mechanism, b.Password == "hunter2")
	}
}

func TestDerivedAPI(t *testing.T) {
	for _, tt := range []struct{ api, want string }{
		{"{}", "http://127.0.0.1:7400"},
		{"{listen: 'localhost:80'}", "http://localhost:80"},
		{"{listen: '[::1]:7400'}", "http://[::1]:7400"},
		{"{listen: '127.0.0.1:0'}", ""},
		{"{listen: '10.1.2.3:7400', allow_remote: true}", "http://10.1.2.3:7400"},
	} {
		if got := mustParse(t, minimal+"api: "+tt.api).Own().API; got != tt.want {
			t.Errorf("api: %s: derived %q, want %q", tt.api, got, tt.want)
		}
	}
}

func TestAccessors(t *testing.T) {
	c := mustParse(t, `
region: b
data_dir: /d
regions:
  c: {api: "http://c", kafka: {seeds: ["c:9092"]}}
  b: {incarnation: 3, kafka: {seeds: ["b:9092"]}}
  a: {api: "http://a", kafka: {seeds: ["a:9092"]}}
`)
	if got := c.Peers(); !slices.Equal(got, []events.Region{"a", "c"}) {
		t.Errorf("Peers() = %v", got)
	}
	if got := c.Origin("b").String(); got != "b_3" {
		t.Errorf("Origin(b) = %s", got)
	}
	if got := c.StreamNames(); !slices.Equal(got, []events.Stream{"config", "metrics", "registry", "secrets", "session"}) {
		t.Errorf("StreamNames() = %v", got)
	}
}

func TestValidateOfCode(t *testing.T) {
	c := Default()
	c.Region, c.DataDir = "a", t.TempDir()
	c.Regions = map[events.Region]Region{
		"a": {Incarnation: 1, Kafka: Kafka{Seeds: []string{"a:9092"}, SASL: SASL{Mechanism: "plain", Username: "u", Password: "p"}}},
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate() = %v", err)
	}
	c.Partitions = 0
	c.Regions["a"] = Region{Kafka: Kafka{Seeds: []string{"a:9092"}}}
	const want = "partitions: want 1 to 1024, got 0\nregions.a.incarnation: want 1 or more, got 0"
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("Validate() = %v, want\n%s", err, want)
	}
	if err := (&Config{}).Validate(); err == nil {
		t.Error("the zero Config passes")
	}
}

func TestErrorIsTyped(t *testing.T) {
	_, err := Parse("f.yaml", []byte(minimal+"partitions: 0\n"), nil)
	var e *Error
	if !errors.As(err, &e) || events.KindOf(err) != events.KindInvalid {
		t.Fatalf("got %T of kind %s", err, events.KindOf(err))
	}
	want := []Problem{{Path: "partitions", Line: 5, Message: "want 1 to 1024, got 0"}}
	if e.File != "f.yaml" || !slices.Equal(e.Problems, want) {
		t.Errorf("got %+v", *e)
	}
	if got, want := err.Error(), "f.yaml:5: partitions: want 1 to 1024, got 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoadReadsTheFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml"), nil); events.KindOf(err) != events.KindNotFound {
		t.Errorf("a file that is not there: %v, kind %s", err, events.KindOf(err))
	}
	if _, err := Load(dir, nil); events.KindOf(err) != events.KindInvalid || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v, kind %s", err, events.KindOf(err))
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, []byte(strings.Repeat("#", maxFileBytes+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big, nil); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("a file that is too large: %v", err)
	}
}

// A small file must not become large work.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("regions:\n  r0: &r {kafka: {seeds: &s [" + strings.Repeat("a,", 1000) + "]}}\n")
	for i := range 1000 {
		b.WriteString("  r" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/50) + ": *r\n")
	}
	_, err := Parse("bomb.yaml", []byte(b.String()), nil)
	if err == nil || !strings.Contains(err.Error(), "want at most 50000 values in all") {
		t.Errorf("got %.200v", err)
	}
}
