package load

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// maxLineBytes bounds a line: a value of the largest size, escaped, and the rest.
const maxLineBytes = 2*events.MaxValueBytes + 1<<20

// Fields name the members of a JSON line that hold the parts of an event.
type Fields struct {
	Key    string // required
	Value  string // empty: the whole line is the value
	Region string // region to write to; a line without it goes to the default
	Clock  string // a number is milliseconds, text is MILLISECONDS.COUNTER; a line without it gets the node's clock
	Op     string // "put" or "delete"; a line without it is a put, or a delete if its value is null
}

// DefaultFields are {"key", "value", "region", "clock", "op"}.
func DefaultFields() Fields {
	return Fields{Key: "key", Value: "value", Region: "region", Clock: "clock", Op: "op"}
}

// JSONLines is an input of one JSON object a line, from a file that may be
// compressed by gzip (its name then ends in .gz).
func JSONLines(path string, fields Fields) (*Input, error) {
	f, err := openLines(path)
	if err != nil {
		return nil, err
	}
	h := fields.newHash()
	if _, err := io.Copy(h, f); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	in := &Input{Name: path, ID: idOf(h)}
	in.Items = func() iter.Seq2[Item, error] {
		return func(yield func(Item, error) bool) { readLines(in, fields, yield) }
	}
	return in, f.Close()
}

// newHash begins the hash of an input that is read by way of the fields.
func (f Fields) newHash() hash.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "jsonl\x00%q\x00", f)
	return h
}

// lineFile closes the decompressor and the file.
type lineFile struct {
	io.Reader
	closers []io.Closer
}

func (f lineFile) Close() error {
	var err error
	for _, c := range f.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

func openLines(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return f, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return lineFile{Reader: z, closers: []io.Closer{z, f}}, nil
}

// readLines yields the items of an input's file. Whether they were those of the
// input is known at the end.
func readLines(in *Input, fields Fields, yield func(Item, error) bool) {
	f, err := openLines(in.Name)
	if err != nil {
		yield(Item{}, err)
		return
	}
	defer f.Close()
	h := fields.newHash()
	lines := bufio.NewReaderSize(io.TeeReader(f, h), 64<<10)
	var line []byte
	for place := 1; err == nil; place++ {
		var tooLong bool
		line, tooLong, err = readLine(lines, line[:0])
		if err != nil && !errors.Is(err, io.EOF) {
			yield(Item{}, fmt.Errorf("%s:%d: %w", in.Name, place, err))
			return
		}
		if !tooLong && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var item Item
		fault := errLineTooLong
		if !tooLong {
			item, fault = fields.parse(line)
		}
		item.Place = place
		if fault != nil {
			fault = &ItemError{Input: in.Name, Place: place, Reason: fault.Error()}
		}
		if !yield(item, fault) {
			return
		}
	}
	if idOf(h) != in.ID {
		yield(Item{}, errChanged(in.Name))
	}
}

var errLineTooLong = fmt.Errorf("the line has more than %d bytes", maxLineBytes)

// readLine appends the next line to buf, without its end; of a line that is too
// long, nothing. The last line comes with io.EOF.
func readLine(r *bufio.Reader, buf []byte) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if tooLong = tooLong || len(buf)+len(part) > maxLineBytes; tooLong {
			buf = buf[:0]
		} else {
			buf = append(buf, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimSuffix(bytes.TrimSuffix(buf, []byte("\n")), []byte("\r")), tooLong, err
		}
	}
}

// parse makes an item of a line. Its errors do not quote values.
func (f Fields) parse(line []byte) (item Item, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return item, fmt.Errorf("no JSON object: %w", err)
	}
	if !utf8.Valid(line) {
		return item, errors.New("not UTF-8")
	}
	if countMembers(line) != len(object) {
		return item, errors.New("a member is given twice")
	}
	var key, region, op string
	for _, m := range []struct {
		name string
		to   *string
	}{{f.Key, &key}, {f.Region, &region}, {f.Op, &op}} {
		if *m.to, err = textOf(object[m.name]); err != nil {
			return item, fmt.Errorf("member %q is %w", m.name, err)
		}
	}
	item.Region, item.Event.Key = events.Region(region), []byte(key)
	if key == "" {
		return item, fmt.Errorf("member %q, the key, is missing or empty", f.Key)
	}
	if clock := object[f.Clock]; !isNull(clock) {
		if item.Event.Clock, err = parseClock(clock); err != nil {
			return item, fmt.Errorf("member %q: %w", f.Clock, err)
		}
	}
	if op == "delete" {
		return item, nil
	}
	if op != "" && op != "put" {
		return item, fmt.Errorf("member %q is neither put nor delete", f.Op)
	}
	return item, f.setValue(&item, object, line, op)
}

// isNull tells of a member that is missing, or as good as missing.
func isNull(member json.RawMessage) bool { return len(member) == 0 || string(member) == "null" }

// textOf is the text of a member, empty if it has none.
func textOf(member json.RawMessage) (string, error) {
	if isNull(member) {
		return "", nil
	}
	if member[0] != '"' {
		return "", errors.New("no text")
	}
	var text api.Bytes // refuses what is not Unicode
	if text.UnmarshalJSON(member) != nil {
		return "", errors.New("no Unicode text")
	}
	return string(text), nil
}

// countMembers counts the members of a valid JSON object; json.Unmarshal keeps
// the last of those that have the same name.
func countMembers(object []byte) (n int) {
	depth, inText := 0, false
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ':' && depth == 1:
			n++
		}
	}
	return n
}

func (f Fields) setValue(item *Item, object map[string]json.RawMessage, line []byte, op string) error {
	item.Event.ContentType = "application/json"
	if f.Value == "" {
		item.Event.Value = bytes.Clone(line)
		return nil
	}
	value, ok := object[f.Value]
	switch {
	case !ok || op == "put" && isNull(value):
		return fmt.Errorf("member %q, the value, is missing", f.Value)
	case isNull(value):
		item.Event.ContentType = ""
	case value[0] == '"':
		text, err := textOf(value)
		if err != nil {
			return fmt.Errorf("member %q is %w", f.Value, err)
		}
		item.Event.Value, item.Event.ContentType = []byte(text), "text/plain; charset=utf-8"
	default:
		item.Event.Value = bytes.Clone(value)
	}
	return nil
}

func parseClock(text json.RawMessage) (*events.HLC, error) {
	var s string
	if json.Unmarshal(text, &s) == nil {
		clock, err := events.ParseHLC(s)
		return &clock, err
	}
	ms, err := strconv.ParseUint(string(text), 10, 47)
	if err != nil {
		return nil, errors.New("neither whole milliseconds nor text like 1750774237000.0")
	}
	clock := events.HLCFromMillis(int64(ms))
	return &clock, nil
}
