package events

import (
	"cmp"
	"strconv"
	"strings"
)

// Region names a failure domain with its own Kafka cluster, bucket and pipeline
// nodes, e.g. "us-east-1": lower-case letters, digits and inner dashes, at most
// MaxNameBytes. It has no dot and no underscore, so that an Origin can be told
// apart from what follows it in a topic's name.
type Region string

// ParseRegion validates s as a region's name.
func ParseRegion(s string) (Region, error) {
	r := Region(s)
	if err := r.Validate(); err != nil {
		return "", err
	}
	return r, nil
}

func (r Region) String() string { return string(r) }

// Validate reports whether the name is well formed.
func (r Region) Validate() error {
	if !isLabel(string(r)) {
		return Errorf(KindInvalid, "region %q: want lower-case letters, digits and inner dashes, 1 to %d bytes", clip(string(r)), MaxNameBytes)
	}
	return nil
}

// Stream names a family of events with one merge rule, one schema family and
// one backup policy, e.g. "session". The same form as a Region's, with inner
// underscores too.
type Stream string

// ParseStream validates s as a stream's name.
func ParseStream(s string) (Stream, error) {
	st := Stream(s)
	if err := st.Validate(); err != nil {
		return "", err
	}
	return st, nil
}

func (s Stream) String() string { return string(s) }

// Validate reports whether the name is well formed.
func (s Stream) Validate() error {
	if !isLabel(strings.ReplaceAll(string(s), "_", "-")) {
		return Errorf(KindInvalid, "stream %q: want lower-case letters, digits and inner dashes or underscores, 1 to %d bytes", clip(string(s)), MaxNameBytes)
	}
	return nil
}

// Origin is where an event was first written: a region and its incarnation. A
// region that lost its logs for good comes back as its next incarnation, so
// that old and new offsets are never mistaken for each other. Incarnations
// count from 1; the first is printed as the bare region ("us-east-1"), later
// ones with a suffix ("us-east-1_2"). The zero Origin means none.
type Origin struct {
	Region      Region
	Incarnation uint32
}

// FirstOrigin is the first incarnation of a region.
func FirstOrigin(r Region) Origin { return Origin{Region: r, Incarnation: 1} }

// ParseOrigin reads what String prints.
func ParseOrigin(s string) (Origin, error) {
	o := Origin{Region: Region(s), Incarnation: 1}
	if i := strings.LastIndexByte(s, '_'); i >= 0 {
		n, err := strconv.ParseUint(s[i+1:], 10, 32)
		o = Origin{Region: Region(s[:i]), Incarnation: uint32(n)}
		if err != nil || n < 2 || o.String() != s {
			return Origin{}, Errorf(KindInvalid, "origin %q: want REGION or REGION_N with incarnation N from 2", clip(s))
		}
	}
	if err := o.Validate(); err != nil {
		return Origin{}, err
	}
	return o, nil
}

// IsZero reports whether o means no origin.
func (o Origin) IsZero() bool { return o == Origin{} }

func (o Origin) String() string {
	if o.Incarnation == 1 {
		return string(o.Region)
	}
	return string(o.Region) + "_" + strconv.FormatUint(uint64(o.Incarnation), 10)
}

// Validate reports whether o names an origin.
func (o Origin) Validate() error {
	if err := o.Region.Validate(); err != nil {
		return err
	}
	if o.Incarnation == 0 {
		return Errorf(KindInvalid, "origin %s: incarnations count from 1", o.Region)
	}
	return nil
}

// Compare orders origins by region, then incarnation.
func (o Origin) Compare(p Origin) int {
	return cmp.Or(strings.Compare(string(o.Region), string(p.Region)), cmp.Compare(o.Incarnation, p.Incarnation))
}

// MirrorTopic names the read-only copy, in another region, of this origin's
// log with the given topic.
func (o Origin) MirrorTopic(topic string) string { return o.String() + "." + topic }

// ParseMirrorTopic splits the name of a mirror into its origin and the log's
// topic. ok is false if the name has not that form.
func ParseMirrorTopic(name string) (o Origin, topic string, ok bool) {
	prefix, topic, found := strings.Cut(name, ".")
	if !found || topic == "" {
		return Origin{}, "", false
	}
	o, err := ParseOrigin(prefix)
	return o, topic, err == nil
}

// ValidateTopic reports whether name can be the topic of a log.
func ValidateTopic(name string) error {
	ok := name != "" && name != "." && name != ".." && len(name) <= MaxTopicBytes
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = isLowerAlnum(c) || 'A' <= c && c <= 'Z' || c == '.' || c == '_' || c == '-'
	}
	if !ok {
		return Errorf(KindInvalid, "topic %q: want letters, digits, dots, underscores and dashes, 1 to %d bytes", clip(name), MaxTopicBytes)
	}
	return nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > MaxNameBytes || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isLowerAlnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// clip bounds what an error quotes of its input.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
