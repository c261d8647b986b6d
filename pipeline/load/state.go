package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/evenkeel/evenkeel/events"
)

// state is what is remembered of a load between runs.
type state struct {
	Input   string                          `json:"input"`  // its name, for people
	Source  string                          `json:"source"` // identifies the load
	Done    bool                            `json:"done"`
	Regions map[events.Region]*regionsState `json:"regions"`
}

// regionsState is how far one region has got.
type regionsState struct {
	Place   int           `json:"place"`   // items up to here are written
	Written int           `json:"written"` // how many of them are this region's
	Ends    events.Vector `json:"ends"`    // all of them are before this cut, and nothing of the load was behind it then
}

func loadState(path, source, input string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{Input: input, Source: source, Regions: map[events.Region]*regionsState{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("progress of the load: %w", err)
	}
	s := &state{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, damaged(path, err)
	}
	if s.Source != source {
		return nil, events.Errorf(events.KindRefused, "progress of the load in %s is that of another load (%s); choose another file", path, s.Input)
	}
	if s.Regions == nil {
		return nil, damaged(path, errors.New("no regions"))
	}
	for region, rs := range s.Regions {
		if rs == nil {
			return nil, damaged(path, fmt.Errorf("nothing is said of region %s", region))
		}
	}
	return s, nil
}

func damaged(path string, err error) error {
	return events.Errorf(events.KindFailed, "progress of the load in %s is damaged: %w; delete the file to load everything anew", path, err)
}

func (s *state) save(path string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("progress of the load: %w", err)
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("progress of the load: %w", err)
	}
	return nil
}

// replaceFile replaces a file in one step, and has it on disk when it returns:
// no crash brings the old one back after something has been sent that the new
// one tells of.
func replaceFile(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
