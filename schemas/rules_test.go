package schemas

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	controlv1 "github.com/evenkeel/evenkeel/schemas/control/v1"
	metricsv1 "github.com/evenkeel/evenkeel/schemas/metrics/v1"
	registryv1 "github.com/evenkeel/evenkeel/schemas/registry/v1"
	secretsv1 "github.com/evenkeel/evenkeel/schemas/secrets/v1"
	sessionv1 "github.com/evenkeel/evenkeel/schemas/session/v1"
)

// field finds a field by its path, and the message that holds it.
func field(t testing.TB, m proto.Message, path string) (protoreflect.Message, protoreflect.FieldDescriptor) {
	t.Helper()
	at := m.ProtoReflect()
	parts := strings.Split(path, ".")
	for i, part := range parts {
		fd := at.Descriptor().Fields().ByName(protoreflect.Name(part))
		if fd == nil {
			t.Fatalf("%T has no field %s", m, path)
		}
		if i == len(parts)-1 {
			return at, fd
		}
		at = at.Mutable(fd).Message()
	}
	return nil, nil
}

// wantField checks m in both encodings: an empty want means accepted, anything
// else is the field that the refusal has to name.
func wantField(t *testing.T, name string, m proto.Message, want, what string) {
	t.Helper()
	typ := mustType(t, name)
	for contentType, data := range map[string][]byte{"application/protobuf": marshal(t, m), "application/json": toJSON(t, m)} {
		if want == "" {
			if err := Check(typ, contentType, data); err != nil {
				t.Errorf("%s: %s: %v", name, what, err)
			}
			continue
		}
		if Check(typ, contentType, data) == nil {
			t.Errorf("%s: %s: accepted in %s", name, what, contentType)
		} else if pe := refusal(t, typ, contentType, data); pe.Field != want {
			t.Errorf("%s: %s: %s blames %q, want %q", name, what, contentType, pe.Field, want)
		}
	}
}

// optional lists the fields that may be absent; every other must be there.
var optional = map[string]bool{
	"erlmcp.session.started.v1 client.version":   true,
	"erlmcp.session.started.v1 capabilities":     true,
	"erlmcp.session.started.v1 user_id":          true,
	"erlmcp.session.ended.v1 detail":             true,
	"erlmcp.registry.registered.v1 server":       true,
	"erlmcp.registry.registered.v1 version":      true,
	"erlmcp.registry.registered.v1 description":  true,
	"erlmcp.registry.registered.v1 capabilities": true,
	"erlmcp.registry.registered.v1 schema_hash":  true,
	"erlmcp.registry.registered.v1 metadata":     true,
	"erlmcp.registry.unregistered.v1 reason":     true,
	"erlmcp.config.set.v1 reason":                true,
	"erlmcp.config.unset.v1 reason":              true,
	"erlmcp.secrets.erased.v1 reason":            true,
	"erlmcp.metrics.sampled.v1 labels":           true,
	"erlmcp.metrics.sampled.v1 value":            true,
	"evenkeel.control.attested.v1 partition":     true,
	"evenkeel.control.attested.v1 offset":        true,
	"evenkeel.control.attested.v1 keys":          true,
	"evenkeel.control.attested.v1 slice_bytes":   true,
}

func TestRequiredFields(t *testing.T) {
	// Fields whose absence another field is blamed for.
	blamed := map[string]string{
		"erlmcp.session.started.v1 client":        "client.name",
		"erlmcp.metrics.sampled.v1 bucket_bounds": "bucket_counts",
	}
	var absent int
	for name := range samples() {
		for _, path := range paths(samples()[name].msg) {
			m := samples()[name].msg
			at, fd := field(t, m, path)
			at.Clear(fd)
			want := path
			if b, ok := blamed[name+" "+path]; ok {
				want = b
			}
			if optional[name+" "+path] {
				want = ""
				absent++
			}
			wantField(t, name, m, want, "without "+path)
		}
	}
	if absent != len(optional) {
		t.Errorf("%d optional fields were met, %d are listed", absent, len(optional))
	}
}

// paths lists the fields of a message and of those inside it.
func paths(m proto.Message) []string {
	var all []string
	var walk func(d protoreflect.MessageDescriptor, prefix string)
	walk = func(d protoreflect.MessageDescriptor, prefix string) {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			all = append(all, prefix+string(fd.Name()))
			if fd.Message() != nil && !fd.IsMap() {
				walk(fd.Message(), prefix+string(fd.Name())+".")
			}
		}
	}
	walk(m.ProtoReflect().Descriptor(), "")
	return all
}

func TestStringLimitsAreExact(t *testing.T) {
	for _, c := range []struct {
		name, path string
		most       int
		controls   bool // may have control characters
	}{
		{"erlmcp.session.started.v1", "session_id", 512, false},
		{"erlmcp.session.started.v1", "client.name", 256, false},
		{"erlmcp.session.started.v1", "client.version", 256, false},
		{"erlmcp.session.started.v1", "protocol_version", 32, false},
		{"erlmcp.session.started.v1", "user_id", 512, false},
		{"erlmcp.session.started.v1", "node", 256, false},
		{"erlmcp.session.ended.v1", "session_id", 512, false},
		{"erlmcp.session.ended.v1", "detail", 1024, true},
		{"erlmcp.session.ended.v1", "node", 256, false},
		{"erlmcp.registry.registered.v1", "name", 512, false},
		{"erlmcp.registry.registered.v1", "node", 256, false},
		{"erlmcp.registry.registered.v1", "server", 512, false},
		{"erlmcp.registry.registered.v1", "version", 256, false},
		{"erlmcp.registry.registered.v1", "description", 8192, true},
		{"erlmcp.registry.unregistered.v1", "name", 512, false},
		{"erlmcp.registry.unregistered.v1", "node", 256, false},
		{"erlmcp.registry.unregistered.v1", "reason", 1024, true},
		{"erlmcp.config.set.v1", "key", 512, false},
		{"erlmcp.config.set.v1", "changed_by", 512, false},
		{"erlmcp.config.set.v1", "reason", 1024, true},
		{"erlmcp.config.unset.v1", "key", 512, false},
		{"erlmcp.config.unset.v1", "changed_by", 512, false},
		{"erlmcp.config.unset.v1", "reason", 1024, true},
		{"erlmcp.secrets.stored.v1", "name", 512, false},
		{"erlmcp.secrets.stored.v1", "stored_by", 512, false},
		{"erlmcp.secrets.erased.v1", "name", 512, false},
		{"erlmcp.secrets.erased.v1", "erased_by", 512, false},
		{"erlmcp.secrets.erased.v1", "reason", 1024, true},
		{"erlmcp.metrics.sampled.v1", "name", 256, false},
		{"erlmcp.metrics.sampled.v1", "node", 256, false},
		{"evenkeel.control.attested.v1", "region", 63, false},
		{"evenkeel.control.attested.v1", "stream", 63, false},
		{"evenkeel.control.region_started.v1", "region", 63, false},
		{"evenkeel.control.region_started.v1", "node", 256, false},
		{"evenkeel.control.region_started.v1", "software_version", 256, false},
	} {
		with := func(v string) proto.Message {
			m := samples()[c.name].msg
			at, fd := field(t, m, c.path)
			at.Set(fd, protoreflect.ValueOfString(v))
			return m
		}
		wantField(t, c.name, with(strings.Repeat("x", c.most)), "", fmt.Sprintf("%s of %d bytes", c.path, c.most))
		wantField(t, c.name, with(strings.Repeat("x", c.most+1)), c.path, fmt.Sprintf("%s of %d bytes", c.path, c.most+1))
		for _, control := range []string{"a\x00", "\x1bc", "a\nb", "a\u0085b"} {
			want := c.path
			if c.controls {
				want = ""
			}
			wantField(t, c.name, with(control), want, fmt.Sprintf("%s of %q", c.path, control))
		}
	}
}

// Every field of Unix milliseconds, found by its name.
func TestMillisRange(t *testing.T) {
	for name := range samples() {
		for _, path := range paths(samples()[name].msg) {
			if !strings.HasSuffix(path, "_ms") {
				continue
			}
			for _, v := range []int64{math.MinInt64, -1, 0, 253402300799999 + 1, math.MaxInt64} {
				m := samples()[name].msg
				at, fd := field(t, m, path)
				at.Set(fd, protoreflect.ValueOfInt64(v))
				wantField(t, name, m, path, fmt.Sprintf("%s of %d", path, v))
			}
		}
	}
}

// Every enum field: the values of the contract and no others.
func TestEnumRange(t *testing.T) {
	for name := range samples() {
		if name == "erlmcp.secrets.stored.v1" || name == "erlmcp.metrics.sampled.v1" || name == "erlmcp.config.set.v1" {
			continue // there other rules depend on the value
		}
		for _, path := range paths(samples()[name].msg) {
			_, fd := field(t, samples()[name].msg, path)
			if fd.Enum() == nil {
				continue
			}
			last := protoreflect.EnumNumber(fd.Enum().Values().Len() - 1)
			for v := protoreflect.EnumNumber(-1); v <= last+1; v++ {
				m := samples()[name].msg
				m.ProtoReflect().Set(fd, protoreflect.ValueOfEnum(v))
				want := ""
				if v < 1 || v > last {
					want = path
				}
				wantField(t, name, m, want, fmt.Sprintf("%s of %d", path, v))
			}
		}
	}
	// A name from some later version, in JSON.
	data := []byte(strings.Replace(string(toJSON(t, samples()["erlmcp.session.started.v1"].msg)), "STATE_ACTIVE", "STATE_NEW", 1))
	if pe := refusal(t, mustType(t, "erlmcp.session.started.v1"), "application/json", data); pe.Field != "state" {
		t.Errorf("an unknown name: %v", pe)
	}
}

// rule is one change to a valid message and the field that is to be blamed.
type rule[M proto.Message] struct {
	what   string
	change func(M)
	want   string
}

func checkRules[M proto.Message](t *testing.T, name string, rules []rule[M]) {
	t.Helper()
	for _, r := range rules {
		m := sampleOf[M](t, name)
		r.change(m)
		wantField(t, name, m, r.want, r.what)
	}
}

// many makes n different words, the first of them of the given length.
func many(n, length int) []string {
	words := []string{strings.Repeat("x", length)}
	for i := 1; i < n; i++ {
		words = append(words, fmt.Sprint(i))
	}
	return words[:n]
}

func pairsOf(words []string, value string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		m[w] = value
	}
	return m
}

func TestSessionRules(t *testing.T) {
	type m = *sessionv1.SessionStarted
	checkRules(t, "erlmcp.session.started.v1", []rule[m]{
		{"64 capabilities", func(m m) { m.Capabilities = many(64, 256) }, ""},
		{"65 capabilities", func(m m) { m.Capabilities = many(65, 1) }, "capabilities"},
		{"a long capability", func(m m) { m.Capabilities = many(1, 257) }, "capabilities"},
		{"an empty capability", func(m m) { m.Capabilities = []string{"a", ""} }, "capabilities"},
		{"a capability twice", func(m m) { m.Capabilities = []string{"a", "b", "a"} }, "capabilities"},
		{"active before start", func(m m) { m.LastActiveAtMs = m.StartedAtMs - 1 }, ""},
	})
}

func TestRegistryRules(t *testing.T) {
	type m = *registryv1.Registered
	checkRules(t, "erlmcp.registry.registered.v1", []rule[m]{
		{"hash of 31 bytes", func(m m) { m.SchemaHash = seq(0, 31) }, "schema_hash"},
		{"hash of 33 bytes", func(m m) { m.SchemaHash = seq(0, 33) }, "schema_hash"},
		{"a capability twice", func(m m) { m.Capabilities = []string{"a", "a"} }, "capabilities"},
		{"64 metadata", func(m m) { m.Metadata = pairsOf(many(64, 256), strings.Repeat("v", 1024)) }, ""},
		{"65 metadata", func(m m) { m.Metadata = pairsOf(many(65, 1), "") }, "metadata"},
		{"long metadata name", func(m m) { m.Metadata = pairsOf(many(1, 257), "") }, "metadata"},
		{"empty metadata name", func(m m) { m.Metadata = map[string]string{"": "x"} }, "metadata"},
		{"long metadata value", func(m m) { m.Metadata = pairsOf(many(1, 1), strings.Repeat("v", 1025)) }, "metadata"},
		{"control character in metadata", func(m m) { m.Metadata = map[string]string{"a": "\a"} }, "metadata"},
	})
}

func TestSecretRules(t *testing.T) {
	type m = *secretsv1.SecretStored
	direct := func(a secretsv1.Algorithm, nonce int) func(m) {
		return func(m m) { m.Algorithm, m.KeyIds, m.WrappedKeys, m.Nonce = a, m.KeyIds[:1], nil, seq(0, nonce) }
	}
	age := func(m m) {
		m.Algorithm, m.WrappedKeys, m.Nonce, m.Ciphertext = secretsv1.Algorithm_ALGORITHM_AGE, nil, nil, ageFile()
	}
	checkRules(t, "erlmcp.secrets.stored.v1", []rule[m]{
		{"one key, direct, AES", direct(secretsv1.Algorithm_ALGORITHM_AES_256_GCM, 12), ""},
		{"one key, direct, ChaCha", direct(secretsv1.Algorithm_ALGORITHM_CHACHA20_POLY1305, 12), ""},
		{"one key, direct, XChaCha", direct(secretsv1.Algorithm_ALGORITHM_XCHACHA20_POLY1305, 24), ""},
		{"short nonce, XChaCha", direct(secretsv1.Algorithm_ALGORITHM_XCHACHA20_POLY1305, 12), "nonce"},
		{"long nonce, ChaCha", direct(secretsv1.Algorithm_ALGORITHM_CHACHA20_POLY1305, 24), "nonce"},
		{"algorithm unknown", direct(99, 12), "algorithm"},
		{"nonce of 11 bytes", func(m m) { m.Nonce = seq(0, 11) }, "nonce"},
		{"no key", func(m m) { m.KeyIds = nil }, "key_ids"},
		{"17 keys", func(m m) { m.KeyIds = many(17, 1) }, "key_ids"},
		{"a key twice", func(m m) { m.KeyIds = []string{"a", "a"} }, "key_ids"},
		{"a long key id", func(m m) { m.KeyIds = many(2, 257) }, "key_ids"},
		{"two keys, direct", func(m m) { m.WrappedKeys = nil }, "wrapped_keys"},
		{"two keys, one wrapped", func(m m) { m.WrappedKeys = m.WrappedKeys[:1] }, "wrapped_keys"},
		{"short wrapped key", func(m m) { m.WrappedKeys[1] = seq(0, 15) }, "wrapped_keys"},
		{"longest wrapped key", func(m m) { m.WrappedKeys[1] = seq(0, 4096) }, ""},
		{"long wrapped key", func(m m) { m.WrappedKeys[1] = seq(0, 4097) }, "wrapped_keys"},
		{"a bare tag", func(m m) { m.Ciphertext = seq(0, 16) }, ""},
		{"less than a tag", func(m m) { m.Ciphertext = seq(0, 15) }, "ciphertext"},
		{"longest ciphertext", func(m m) { m.Ciphertext = seq(0, 512<<10) }, ""},
		{"long ciphertext", func(m m) { m.Ciphertext = seq(0, 512<<10+1) }, "ciphertext"},
		{"age", age, ""},
		{"age with a nonce", func(m m) { age(m); m.Nonce = seq(0, 12) }, "nonce"},
		{"age with wrapped keys", func(m m) { age(m); m.WrappedKeys = [][]byte{seq(0, 16), seq(0, 16)} }, "wrapped_keys"},
		{"age that is plaintext", func(m m) { age(m); m.Ciphertext = []byte("correct horse battery staple") }, "ciphertext"},
	})
}

func TestMetricRules(t *testing.T) {
	type m = *metricsv1.MetricSampled
	plain := func(kind metricsv1.Kind, value float64) func(m) {
		return func(m m) {
			m.Kind, m.Value, m.Count, m.BucketBounds, m.BucketCounts = kind, value, 0, nil, nil
			if kind == metricsv1.Kind_KIND_GAUGE {
				m.WindowStartMs = m.WindowEndMs
			}
		}
	}
	buckets := func(count uint64, bounds []float64, counts ...uint64) func(m) {
		return func(m m) { m.Count, m.BucketBounds, m.BucketCounts = count, bounds, counts }
	}
	const counter, gauge = metricsv1.Kind_KIND_COUNTER, metricsv1.Kind_KIND_GAUGE
	ascending := make([]float64, 129)
	for i := range ascending {
		ascending[i] = float64(i)
	}
	checkRules(t, "erlmcp.metrics.sampled.v1", []rule[m]{
		{"counter", plain(counter, 3), ""},
		{"counter at 0", plain(counter, 0), ""},
		{"counter below 0", plain(counter, -1), "value"},
		{"gauge below 0", plain(gauge, -1), ""},
		{"gauge with a window", func(m m) { plain(gauge, 1)(m); m.WindowStartMs-- }, "window_start_ms"},
		{"kind unknown", plain(9, 1), "kind"},
		{"NaN", plain(gauge, math.NaN()), "value"},
		{"infinite", plain(gauge, math.Inf(-1)), "value"},
		{"histogram below 0", func(m m) { m.Value = -1 }, ""},
		{"counter with count", func(m m) { plain(counter, 1)(m); m.Count = 1 }, "count"},
		{"counter with bounds", func(m m) { plain(counter, 1)(m); m.BucketBounds = []float64{1} }, "bucket_bounds"},
		{"counter with buckets", func(m m) { plain(counter, 1)(m); m.BucketCounts = []uint64{1} }, "bucket_counts"},
		{"one bucket", buckets(5, nil, 5), ""},
		{"nothing observed", buckets(0, []float64{1}, 0, 0), ""},
		{"no bucket", buckets(0, nil), "bucket_counts"},
		{"128 bounds", buckets(0, ascending[:128], make([]uint64, 129)...), ""},
		{"129 bounds", buckets(0, ascending, make([]uint64, 130)...), "bucket_bounds"},
		{"bounds equal", buckets(3, []float64{1, 1}, 1, 1, 1), "bucket_bounds"},
		{"bounds falling", buckets(3, []float64{2, 1}, 1, 1, 1), "bucket_bounds"},
		{"bound infinite", buckets(2, []float64{math.Inf(1)}, 1, 1), "bucket_bounds"},
		{"bound NaN", buckets(2, []float64{math.NaN()}, 1, 1), "bucket_bounds"},
		{"a bucket too many", buckets(3, []float64{1}, 1, 1, 1), "bucket_counts"},
		{"count not the sum", buckets(3, []float64{1}, 1, 1), "count"},
		{"sum overflows", buckets(0, []float64{1}, math.MaxUint64, 1), "bucket_counts"},
		{"largest sum", buckets(math.MaxUint64, []float64{1}, math.MaxUint64-1, 1), ""},
		{"window backwards", func(m m) { m.WindowEndMs = m.WindowStartMs - 1 }, "window_end_ms"},
		{"32 labels", func(m m) { m.Labels = pairsOf(many(32, 1), "v") }, ""},
		{"33 labels", func(m m) { m.Labels = pairsOf(many(33, 1), "v") }, "labels"},
	})
}

func TestControlRules(t *testing.T) {
	type m = *controlv1.Attested
	hash := func(n int) []byte { return seq(0, n) }
	rules := []rule[m]{
		{"first offset", func(m m) { m.Offset, m.Keys, m.SliceBytes = 0, 0, 0 }, ""},
		{"offset below 0", func(m m) { m.Offset = -1 }, "offset"},
		{"last offset", func(m m) { m.Offset = math.MaxInt64 }, ""},
		{"last partition", func(m m) { m.Partition = 1<<20 - 1 }, ""},
		{"partition past it", func(m m) { m.Partition = 1 << 20 }, "partition"},
		{"chain of 15", func(m m) { m.Chain = hash(15) }, "chain"},
		{"chain of 17", func(m m) { m.Chain = hash(17) }, "chain"},
		{"digest of 15", func(m m) { m.Digest = hash(15) }, "digest"},
		{"digest of 32", func(m m) { m.Digest = hash(32) }, "digest"},
		{"digest of zeros", func(m m) { m.Digest = make([]byte, 16) }, ""},
		{"stream with _", func(m m) { m.Stream = "a_b-c" }, ""},
		{"region with _", func(m m) { m.Region = "a_b" }, "region"},
	}
	for _, bad := range []string{"-a", "a-", "A", "a.b", "a/b", "a b", "é", "_a", "a_"} {
		rules = append(rules,
			rule[m]{"region " + bad, func(m m) { m.Region = bad }, "region"},
			rule[m]{"stream " + bad, func(m m) { m.Stream = bad }, "stream"})
	}
	checkRules(t, "evenkeel.control.attested.v1", rules)
}
