package load

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Item is one event of an input.
type Item struct {
	Place  int           // counts from 1: the line, or the number of the file
	Region events.Region // empty: the load's default
	Event  api.LoadEvent // its ID is set by the load
}

// Input is something that can be loaded. Items gives the same items each time.
// An *ItemError is about one item, and the items after it follow; any other
// error ends the input.
type Input struct {
	Name  string
	ID    string // hash of all that decides what the items are
	Items func() iter.Seq2[Item, error]
}

// ItemError says what is wrong with one item.
type ItemError struct {
	Input  string
	Place  int
	Reason string
}

func (e *ItemError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Input, e.Place, e.Reason) }

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
	h := sha256.New()
	fmt.Fprintf(h, "jsonl\x00%q\x00", fields)
	f, err := openLines(path)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(h, f); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	in := &Input{Name: path, ID: hex.EncodeToString(h.Sum(nil)[:16])}
	in.Items = func() iter.Seq2[Item, error] {
		return func(yield func(Item, error) bool) { readLines(path, fields, yield) }
	}
	return in, f.Close()
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

func readLines(path string, fields Fields, yield func(Item, error) bool) {
	f, err := openLines(path)
	if err != nil {
		yield(Item{}, err)
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 64<<10), maxLineBytes)
	place := 0
	for lines.Scan() {
		place++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		item, err := fields.parse(lines.Bytes())
		item.Place = place
		if err != nil {
			err = &ItemError{Input: path, Place: place, Reason: err.Error()}
		}
		if !yield(item, err) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield(Item{}, fmt.Errorf("%s:%d: %w", path, place+1, err))
	}
}

// parse makes an item of a line. Its errors do not quote values.
func (f Fields) parse(line []byte) (item Item, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return item, fmt.Errorf("no JSON object: %w", err)
	}
	var key, region, op string
	for _, m := range []struct {
		name string
		to   *string
	}{{f.Key, &key}, {f.Region, &region}, {f.Op, &op}} {
		if text, ok := object[m.name]; ok && json.Unmarshal(text, m.to) != nil {
			return item, fmt.Errorf("member %q is no text", m.name)
		}
	}
	item.Region, item.Event.Key = events.Region(region), []byte(key)
	if key == "" {
		return item, fmt.Errorf("member %q, the key, is missing or empty", f.Key)
	}
	if clock, ok := object[f.Clock]; ok {
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

func (f Fields) setValue(item *Item, object map[string]json.RawMessage, line []byte, op string) error {
	item.Event.ContentType = "application/json"
	if f.Value == "" {
		item.Event.Value = bytes.Clone(line)
		return nil
	}
	value, ok := object[f.Value]
	switch {
	case !ok || op == "put" && string(value) == "null":
		return fmt.Errorf("member %q, the value, is missing", f.Value)
	case string(value) == "null":
		item.Event.ContentType = ""
	case value[0] == '"':
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return fmt.Errorf("member %q is no text", f.Value)
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

// Files is an input of plain files, one event each: the key is prefix and the
// file's path below root (or its name, if root is a file), the value is its
// content.
func Files(root, prefix string) (*Input, error) {
	var paths []string
	h := sha256.New()
	fmt.Fprintf(h, "files\x00%q\x00", prefix)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %x\n", path, sha256.Sum256(content))
		paths = append(paths, path)
		return nil
	})
	if err != nil {
		return nil, err
	}
	in := &Input{Name: root, ID: hex.EncodeToString(h.Sum(nil)[:16])}
	in.Items = func() iter.Seq2[Item, error] {
		return func(yield func(Item, error) bool) {
			for i, path := range paths {
				item, err := fileItem(root, prefix, path)
				item.Place = i + 1
				if !yield(item, err) {
					return
				}
			}
		}
	}
	return in, nil
}

func fileItem(root, prefix, path string) (Item, error) {
	key, err := filepath.Rel(root, path)
	if err != nil {
		return Item{}, err
	}
	if key == "." {
		key = filepath.Base(path)
	}
	content, err := os.ReadFile(path)
	if content == nil {
		content = []byte{}
	}
	return Item{Event: api.LoadEvent{Key: []byte(prefix + filepath.ToSlash(key)), Value: content}}, err
}
