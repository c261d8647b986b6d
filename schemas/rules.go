package schemas

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Limits that several contracts share, in bytes of UTF-8. The .proto files
// state them as numbers, because that is where other languages read them.
const (
	maxIDBytes    = 512       // keys, ids, people
	maxNameBytes  = 256       // names, versions, nodes
	maxLabelBytes = 63        // regions, streams
	maxTextBytes  = 1024      // reasons and other notes
	maxBlobBytes  = 512 << 10 // configuration values, ciphertexts
)

// rules collects the first rule that a message breaks. Fields and reasons are
// our own words and numbers, never anything from the message: they end up in
// errors and logs, and the message may be secret. That is also why a map's rule
// does not say which of its entries is at fault.
type rules struct{ field, reason string }

func (r *rules) ok() bool { return r.reason == "" }

// that is the rule underneath all others: ok must hold of field, "" meaning
// the message as a whole. The reason may have a %d for each of limits; it is
// formatted only when it is needed, since checking is on the way of every event.
func (r *rules) that(ok bool, field, reason string, limits ...int) {
	if ok || !r.ok() {
		return
	}
	args := make([]any, len(limits))
	for i, n := range limits {
		args[i] = n
	}
	r.field, r.reason = field, fmt.Sprintf(reason, args...)
}

// id: required, what keys and people are named by.
func (r *rules) id(field, v string) { r.word(field, v, maxIDBytes) }

// name: required, shorter than an id.
func (r *rules) name(field, v string) { r.word(field, v, maxNameBytes) }

// word: required, on one line and safe to print.
func (r *rules) word(field, v string, most int) {
	r.that(isWord(v, most), field, "must have 1 to %d bytes and no control characters", most)
}

// optional: empty, or a word.
func (r *rules) optional(field, v string, most int) {
	r.that(v == "" || isWord(v, most), field, "must have at most %d bytes and no control characters", most)
}

// text: may be empty, any characters.
func (r *rules) text(field, v string, most int) {
	r.that(len(v) <= most, field, "must have at most %d bytes", most)
}

// names: a set of words.
func (r *rules) names(field string, vs []string, least, most int) {
	r.that(least <= len(vs) && len(vs) <= most, field, "must have %d to %d entries", least, most)
	if !r.ok() {
		return // bounds the loop below, whose work is the square of the length
	}
	for i, v := range vs {
		r.that(isWord(v, maxNameBytes), field, "must have entries of 1 to %d bytes without control characters", maxNameBytes)
		r.that(!slices.Contains(vs[:i], v), field, "must have each entry once")
	}
}

// pairs: labels or metadata. One reason for all faults of an entry, so that the
// error does not depend on the order in which the map is walked.
func (r *rules) pairs(field string, vs map[string]string, most int) {
	r.that(len(vs) <= most, field, "must have at most %d entries", most)
	for k, v := range vs {
		r.that(isWord(k, maxNameBytes) && (v == "" || isWord(v, maxTextBytes)), field,
			"must have names of 1 to %d bytes and values of at most %d, without control characters", maxNameBytes, maxTextBytes)
	}
}

// label: required, a name that topics and folders are made of. Beside
// lower-case letters and digits it may have what inner lists, inside.
func (r *rules) label(field, v, inner string) {
	bad := func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.ContainsRune(inner, c))
	}
	ok := v != "" && len(v) <= maxLabelBytes && !strings.ContainsFunc(v, bad) && strings.Trim(v, inner) == v
	r.that(ok, field, "must have 1 to %d lower-case letters, digits and inner separators", maxLabelBytes)
}

// enum: required and known to this version, which never gets new values.
func (r *rules) enum(field string, v int32, known map[int32]string) {
	_, ok := known[v]
	r.that(ok && v != 0, field, "must be one of the values of the contract, and not unspecified")
}

func (r *rules) exactly(field string, v []byte, n int) {
	r.that(len(v) == n, field, "must have exactly %d bytes", n)
}

func (r *rules) blob(field string, v []byte, least, most int) {
	r.that(least <= len(v) && len(v) <= most, field, "must have %d to %d bytes", least, most)
}

// millis: required. The limit is the last millisecond of the year 9999, where
// RFC 3339 ends.
func (r *rules) millis(field string, v int64) {
	r.that(1 <= v && v <= 253402300799999, field, "must be Unix milliseconds from 1 to 253402300799999")
}

func (r *rules) positive(field string, v uint64) { r.that(v > 0, field, "must be 1 or more") }

func isWord(v string, most int) bool {
	return v != "" && len(v) <= most && !strings.ContainsFunc(v, unicode.IsControl)
}
