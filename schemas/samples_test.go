package schemas

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/evenkeel/evenkeel/schemas/config/v1"
	controlv1 "github.com/evenkeel/evenkeel/schemas/control/v1"
	metricsv1 "github.com/evenkeel/evenkeel/schemas/metrics/v1"
	registryv1 "github.com/evenkeel/evenkeel/schemas/registry/v1"
	secretsv1 "github.com/evenkeel/evenkeel/schemas/secrets/v1"
	sessionv1 "github.com/evenkeel/evenkeel/schemas/session/v1"
)

// sample is one valid event of a type, with every field of its payload set. The
// golden files are made from samples, once.
type sample struct {
	key    string
	id     string
	source string
	millis int64
	msg    proto.Message
}

// newYear is 2026-01-01T00:00:00Z in milliseconds: the samples' common day.
const newYear = 1767225600000

func seq(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(from + i)
	}
	return b
}

// samples makes all messages anew, so that a test may change them.
func samples() map[string]sample {
	const node = "erlmcp@node-a"
	const source = "/erlmcp/us-east-1/node-a"
	return map[string]sample{
		"erlmcp.session.started.v1": {
			key: "s-7f3a91", id: "01-session-started", source: source, millis: newYear,
			msg: &sessionv1.SessionStarted{
				SessionId:       "s-7f3a91",
				Client:          &sessionv1.ClientInfo{Name: "acme-desktop", Version: "4.2.0"},
				ProtocolVersion: "2025-06-18",
				Capabilities:    []string{"tools.listChanged", "resources.subscribe", "prompts"},
				UserId:          "user:zoë",
				Node:            node,
				Transport:       sessionv1.Transport_TRANSPORT_STREAMABLE_HTTP,
				State:           sessionv1.State_STATE_ACTIVE,
				StartedAtMs:     newYear,
				LastActiveAtMs:  newYear + 250,
			},
		},
		"erlmcp.session.ended.v1": {
			key: "s-7f3a91", id: "02-session-ended", source: source, millis: newYear + 90_000,
			msg: &sessionv1.SessionEnded{
				SessionId: "s-7f3a91",
				Reason:    sessionv1.EndReason_END_REASON_TIMEOUT,
				Detail:    "nothing heard for 60 s",
				Node:      node,
				EndedAtMs: newYear + 90_000,
			},
		},
		"erlmcp.registry.registered.v1": {
			key: "tool/weather.lookup", id: "03-registry-registered", source: source, millis: newYear + 1,
			msg: &registryv1.Registered{
				Kind:           registryv1.Kind_KIND_TOOL,
				Name:           "weather.lookup",
				Node:           node,
				Server:         "weather",
				Version:        "1.3.0",
				Description:    "Current weather at a place.\nTakes a name or coordinates.",
				Capabilities:   []string{"progress", "cancel"},
				SchemaHash:     seq(0x10, 32),
				Metadata:       map[string]string{"team": "forecasts", "cost": "low", "note": ""},
				RegisteredAtMs: newYear + 1,
			},
		},
		"erlmcp.registry.unregistered.v1": {
			key: "tool/weather.lookup", id: "04-registry-unregistered", source: source, millis: newYear + 3_600_000,
			msg: &registryv1.Unregistered{
				Kind:             registryv1.Kind_KIND_TOOL,
				Name:             "weather.lookup",
				Node:             node,
				Reason:           "server left",
				UnregisteredAtMs: newYear + 3_600_000,
			},
		},
		"erlmcp.config.set.v1": {
			key: "limits.session", id: "05-config-set", source: source, millis: newYear + 2,
			msg: &configv1.ConfigSet{
				Key:         "limits.session",
				Value:       `{"max": 10000, "idle_seconds": 60}`,
				Format:      configv1.Format_FORMAT_JSON,
				Version:     7,
				ChangedBy:   "user:ada",
				Reason:      "load test of the week",
				ChangedAtMs: newYear + 2,
			},
		},
		"erlmcp.config.unset.v1": {
			key: "limits.session", id: "06-config-unset", source: source, millis: newYear + 7_200_000,
			msg: &configv1.ConfigUnset{
				Key:         "limits.session",
				Version:     8,
				ChangedBy:   "user:ada",
				Reason:      "back to the default",
				ChangedAtMs: newYear + 7_200_000,
			},
		},
		"erlmcp.secrets.stored.v1": {
			key: "providers/weather/api-token", id: "07-secrets-stored", source: source, millis: newYear + 3,
			msg: &secretsv1.SecretStored{
				Name:        "providers/weather/api-token",
				Version:     2,
				Algorithm:   secretsv1.Algorithm_ALGORITHM_AES_256_GCM,
				KeyIds:      []string{"kms:operating/3", "kms:recovery/1"},
				WrappedKeys: [][]byte{seq(0x40, 40), seq(0x80, 40)},
				Nonce:       seq(0xa0, 12),
				Ciphertext:  seq(0xc0, 48),
				StoredBy:    "user:ada",
				StoredAtMs:  newYear + 3,
			},
		},
		"erlmcp.secrets.erased.v1": {
			key: "providers/weather/api-token", id: "08-secrets-erased", source: source, millis: newYear + 10_800_000,
			msg: &secretsv1.SecretErased{
				Name:       "providers/weather/api-token",
				Version:    3,
				ErasedBy:   "user:ada",
				Reason:     "provider retired",
				ErasedAtMs: newYear + 10_800_000,
			},
		},
		"erlmcp.metrics.sampled.v1": {
			key: node + "/erlmcp_request_duration_seconds{method=tools/call}", id: "09-metrics-sampled", source: source, millis: newYear + 60_000,
			msg: &metricsv1.MetricSampled{
				Name:          "erlmcp_request_duration_seconds",
				Labels:        map[string]string{"method": "tools/call"},
				Kind:          metricsv1.Kind_KIND_HISTOGRAM,
				Value:         12.75,
				Count:         142,
				BucketBounds:  []float64{0.01, 0.1, 1},
				BucketCounts:  []uint64{90, 40, 11, 1},
				WindowStartMs: newYear,
				WindowEndMs:   newYear + 60_000,
				Node:          node,
			},
		},
		"evenkeel.control.attested.v1": {
			key: "us-east-1_2/session/3", id: "10-control-attested", source: "/evenkeel/us-east-1/keel-0", millis: newYear + 1000,
			msg: &controlv1.Attested{
				Region:        "us-east-1",
				Incarnation:   2,
				Stream:        "session",
				Partition:     3,
				Offset:        1042,
				Chain:         seq(0x00, 16),
				Digest:        seq(0xf0, 16),
				Keys:          917,
				SliceBytes:    204_800,
				FormatVersion: 1,
				AttestedAtMs:  newYear + 1000,
			},
		},
		"evenkeel.control.region_started.v1": {
			key: "us-east-1_2", id: "11-control-region-started", source: "/evenkeel/us-east-1/keel-0", millis: newYear + 500,
			msg: &controlv1.RegionStarted{
				Region:          "us-east-1",
				Incarnation:     2,
				Node:            "keel-0",
				SoftwareVersion: "1.4.0",
				StartedAtMs:     newYear + 500,
			},
		},
	}
}

// mustType finds a type that has to be there.
func mustType(t testing.TB, name string) Type {
	t.Helper()
	typ, ok := Lookup(name)
	if !ok {
		t.Fatalf("no type %s", name)
	}
	return typ
}

// sampleOf is the sample of a type as the message M.
func sampleOf[M proto.Message](t testing.TB, name string) M {
	t.Helper()
	m, ok := samples()[name].msg.(M)
	if !ok {
		t.Fatalf("no sample of %s as %T", name, m)
	}
	return m
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ageFile is the beginning of an age file and some bytes that stand for the rest.
func ageFile() []byte { return append([]byte(ageMagic), bytes.Repeat([]byte{0xee}, 64)...) }
