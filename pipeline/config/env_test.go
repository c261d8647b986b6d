package config

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

const twoRegions = `region: us-east-1
data_dir: /d
regions:
  us-east-1: {kafka: {seeds: ["a:9092"]}}
  eu: {api: "http://eu", kafka: {seeds: ["eu:9092"]}}
`

func TestEnvironmentOverrides(t *testing.T) {
	for _, tt := range []struct {
		variable string
		got      func(*Config) any
		want     any
	}{
		{"EVENKEEL_DATA_DIR=/srv", func(c *Config) any { return c.DataDir }, "/srv"},
		{"EVENKEEL_DATA_DIR=0123", func(c *Config) any { return c.DataDir }, "0123"},
		{"EVENKEEL_DATA_DIR=a=b", func(c *Config) any { return c.DataDir }, "a=b"},
		{"EVENKEEL_DATA_DIR=", func(c *Config) any { return c.DataDir }, "/d"},
		{"EVENKEEL_PARTITIONS=16", func(c *Config) any { return c.Partitions }, int32(16)},
		{"EVENKEEL_API__LISTEN=127.0.0.1:7500", func(c *Config) any { return c.Own().API }, "http://127.0.0.1:7500"},
		{"EVENKEEL_LIMITS__STOP_TIMEOUT=90s", func(c *Config) any { return c.Limits.StopTimeout }, 90 * time.Second},
		{"EVENKEEL_LIMITS__MIN_FREE_BYTES=0", func(c *Config) any { return c.Limits.MinFreeBytes }, int64(0)},
		{"EVENKEEL_BACKUP__BUCKET=b-1", func(c *Config) any { return c.Backup.Bucket + " " + c.Backup.Region }, "b-1 us-east-1"},
		{"EVENKEEL_BACKUP__COPIES__WEST__BUCKET=b-2", func(c *Config) any { return c.Backup.Copies["west"] }, Copy{Bucket: "b-2", Region: "us-west-1"}},
		{"EVENKEEL_BACKUP__COPIES__WEST__STORAGE_CLASS=GLACIER_IR", func(c *Config) any { return c.Backup.Copies["west"].StorageClass }, "GLACIER_IR"},
		{"EVENKEEL_BACKUP__KEEP__FULL=7d12h", func(c *Config) any { return c.Backup.Keep.Full }, 180 * time.Hour},
		{"EVENKEEL_BACKUP__RECIPIENTS=" + strings.Join(exampleRecipients, ","), func(c *Config) any { return c.Backup.Recipients }, exampleRecipients},
		{"EVENKEEL_STREAMS__SESSION__TOPIC=s.v2", func(c *Config) any { return c.Streams["session"] }, Stream{Topic: "s.v2", Merge: "lww"}},
		{"EVENKEEL_REGIONS__EU__INCARNATION=2", func(c *Config) any { return c.Origin("eu").String() }, "eu_2"},
		{"EVENKEEL_REGIONS__US_EAST_1__KAFKA__SEEDS=b:1, c:2", func(c *Config) any { return c.Own().Kafka.Seeds }, []string{"b:1", "c:2"}},
		{"EVENKEEL_REGIONS__US_EAST_1__KAFKA__SEEDS=b:1,c:2", func(c *Config) any { return c.Regions["eu"].Kafka.Seeds }, []string{"eu:9092"}},
	} {
		text := twoRegions
		if strings.HasPrefix(tt.variable, "EVENKEEL_BACKUP__") {
			text += "backup: {bucket: b-0, encryption: none, copies: {west: {bucket: b-9, region: us-west-1}}}\n"
		}
		if strings.Contains(tt.variable, "RECIPIENTS") {
			text = strings.Replace(text, "none", "age", 1)
		}
		if got := tt.got(mustParse(t, text, tt.variable)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.variable, got, tt.want)
		}
	}
}

func TestRegionFromTheEnvironment(t *testing.T) {
	text := strings.Replace(twoRegions, "us-east-1: {", "us-east-1: {api: 'http://us', ", 1)
	c := mustParse(t, text, "EVENKEEL_REGION=eu")
	if got := c.Peers(); c.Region != "eu" || !slices.Equal(got, []events.Region{"us-east-1"}) {
		t.Errorf("region %s with peers %v", c.Region, got)
	}
}

func TestEnvironmentProblems(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    []Problem
	}{
		{[]string{"EVENKEEL_API_LISTEN=127.0.0.1:1"}, []Problem{
			{Path: "EVENKEEL_API_LISTEN", Message: "no key of the configuration has this name; did you mean EVENKEEL_API__LISTEN?"}}},
		{[]string{"EVENKEEL_REGIONS__US_EAST1__KAFKA__SEEDS=a:1"}, []Problem{
			{Path: "EVENKEEL_REGIONS__US_EAST1__KAFKA__SEEDS", Message: "no key of the configuration has this name; did you mean EVENKEEL_REGIONS__US_EAST_1__KAFKA__SEEDS?"}}},
		{[]string{"EVENKEEL_BACKUP=x", "EVENKEEL_REGIONS__SA_EAST__API=http://sa"}, []Problem{
			{Path: "EVENKEEL_BACKUP", Message: "no key of the configuration has this name"},
			{Path: "EVENKEEL_REGIONS__SA_EAST__API", Message: "no key of the configuration has this name"}}},
		{[]string{"EVENKEEL_BACKUP__COPIES__WEST__BUCKET=b"}, []Problem{
			{Path: "EVENKEEL_BACKUP__COPIES__WEST__BUCKET", Message: "no key of the configuration has this name"}}},
		{[]string{"EVENKEEL_PORT=7400"}, []Problem{
			{Path: "EVENKEEL_PORT", Message: "no key of the configuration has this name"}}},
		{[]string{"EVENKEEL_REGIONS__EU__KAFKA__SASL__PASSWORD=p"}, []Problem{
			{Path: "EVENKEEL_REGIONS__EU__KAFKA__SASL__PASSWORD", Message: "no key of the configuration has this name; did you mean EVENKEEL_REGIONS__EU__KAFKA__SASL__PASSWORD_ENV?"}}},
		{[]string{"EVENKEEL_PARTITIONS=many"}, []Problem{
			{Path: "partitions", Message: `want a whole number, got text "many" (from EVENKEEL_PARTITIONS)`}}},
		{[]string{"EVENKEEL_PARTITIONS=null", "EVENKEEL_GROUP=null"}, []Problem{
			{Path: "partitions", Message: `want a whole number, got null (from EVENKEEL_PARTITIONS)`}}},
		{[]string{"EVENKEEL_PARTITIONS=2000"}, []Problem{
			{Path: "partitions", Message: "want 1 to 1024, got 2000 (from EVENKEEL_PARTITIONS)"}}},
		{[]string{"EVENKEEL_REGIONS__EU__KAFKA__SEEDS=eu:9092,eu"}, []Problem{
			{Path: "regions.eu.kafka.seeds[1]", Message: `want host:port, got "eu" (from EVENKEEL_REGIONS__EU__KAFKA__SEEDS)`}}},
		{[]string{"EVENKEEL_BACKUP__PREFIX=p", "EVENKEEL_BACKUP__ENCRYPTION=none"}, []Problem{
			{Path: "backup.bucket", Message: "missing: where do backups go? Leave the whole block out for none"}}},
		{[]string{"EVENKEEL_API__ALLOW_REMOTE=yes"}, []Problem{
			{Path: "api.allow_remote", Message: `want true or false, got text "yes" (from EVENKEEL_API__ALLOW_REMOTE)`}}},
	} {
		_, err := Parse("f.yaml", []byte(twoRegions), tt.environ)
		var e *Error
		if !errors.As(err, &e) || !slices.Equal(e.Problems, tt.want) {
			t.Errorf("%v:\n got %v\nwant %+v", tt.environ, err, tt.want)
		}
	}
}

func TestAmbiguousVariable(t *testing.T) {
	text := minimal + "streams: {a-b: , a_b: {topic: other}}\n"
	mustParse(t, text)
	_, err := Parse("f.yaml", []byte(text), []string{"EVENKEEL_STREAMS__A_B__MERGE=lww"})
	const want = "f.yaml: EVENKEEL_STREAMS__A_B__MERGE: may mean streams.a-b.merge or streams.a_b.merge: change the file instead"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestVariablesThatAreNoKeys(t *testing.T) {
	environ := []string{
		"EVENKEEL_SERVER=x", "EVENKEEL_LAB=x", "EVENKEEL_OUTPUT=json", "EVENKEEL_CONFIG=f.yaml",
		"EVENKEEL_KAFKA_US_EAST_1=127.0.0.1:1", "EVENKEEL_KAFKA_PASSWORD=p", "EVENKEEL_MY_PASSWORD=p",
		"EVENKEEL_SERVICE_HOST=10.0.0.1", "EVENKEEL_SERVICE_PORT=7400", "EVENKEEL_SERVICE_PORT_API=7400", "EVENKEEL_PORT=tcp://10.0.0.1:7400",
		"EVENKEEL_PORT_7400_TCP=tcp://x", "EVENKEEL_PORT_7400_TCP_ADDR=10.0.0.1", "EVENKEEL_HEADLESS_SERVICE_HOST=10.0.0.1",
		"OTHER=x", "EVENKEEL=x", "nonsense", "=x",
		"EVENKEEL_REGIONS__EU__KAFKA__SASL__MECHANISM=plain",
		"EVENKEEL_REGIONS__EU__KAFKA__SASL__USERNAME=u",
		"EVENKEEL_REGIONS__EU__KAFKA__SASL__PASSWORD_ENV=EVENKEEL_MY_PASSWORD",
	}
	mustParse(t, twoRegions, environ...)
	_, err := Parse("f.yaml", []byte(twoRegions), []string{"EVENKEEL_MY_PASSWORD=p"})
	if err == nil || !strings.Contains(err.Error(), "EVENKEEL_MY_PASSWORD: no key") {
		t.Errorf("a password that nobody names: %v", err)
	}
}

// A key that has the name of one of the command line's variables could never
// be overridden by its own.
func TestNoKeyIsHidden(t *testing.T) {
	c := mustParse(t, twoRegions)
	for name, settings := range variables(c) {
		if slices.Contains(cliVariables, name) || strings.HasPrefix(name, testVariablePrefix) || serviceVariable.MatchString(name+"=tcp://") {
			t.Errorf("%s overrides %s, and means something else too", name, settings[0])
		}
	}
}
