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
		return nil, fmt.Errorf("progress of the load in %s is damaged: %w; delete the file to load everything anew", path, err)
	}
	if s.Source != source || s.Regions == nil {
		return nil, fmt.Errorf("progress of the load in %s is that of another load (%s); choose another file", path, s.Input)
	}
	return s, nil
}

// save replaces the file in one step, so that a crash leaves the old or the new
// one.
func (s *state) save(path string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("progress of the load: %w", err)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return fmt.Errorf("progress of the load: %w", err)
	}
	return os.Rename(temporary, path)
}
