package load

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Files is an input of plain files, one event each: the key is prefix and the
// file's path below root (or its name, if root is a file), the value is its
// content. Links below root are not followed.
func Files(root, prefix string) (*Input, error) {
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	var files []file
	h := sha256.New()
	fmt.Fprintf(h, "files\x00%q\x00", prefix)
	err = filepath.WalkDir(resolved, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		key, err := filepath.Rel(resolved, path)
		if err != nil {
			return err
		}
		if key == "." {
			key = filepath.Base(root)
		}
		f := file{path: path, key: prefix + filepath.ToSlash(key)}
		if f.sum, err = hashFile(path); err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %x\n", f.key, f.sum)
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	in := &Input{Name: root, ID: idOf(h)}
	in.Items = func() iter.Seq2[Item, error] {
		return func(yield func(Item, error) bool) {
			for i, f := range files {
				item, err := f.item(root, i+1)
				if !yield(item, err) {
					return
				}
			}
		}
	}
	return in, nil
}

// file is one file of an input of files.
type file struct {
	path, key string
	sum       []byte
}

func hashFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

func (f file) item(input string, place int) (Item, error) {
	item := Item{Place: place, Event: api.LoadEvent{Key: []byte(f.key)}}
	r, err := os.Open(f.path)
	if err != nil {
		return item, err
	}
	defer r.Close()
	content, err := io.ReadAll(io.LimitReader(r, events.MaxValueBytes+1))
	switch sum := sha256.Sum256(content); {
	case err != nil:
		return item, err
	case len(content) > events.MaxValueBytes:
		return item, &ItemError{Input: input, Place: place, Reason: fmt.Sprintf("%s has more than %d bytes", f.path, events.MaxValueBytes)}
	case !bytes.Equal(sum[:], f.sum):
		return item, errChanged(f.path)
	}
	item.Event.Value = content
	return item, nil
}
