package applybench

import (
	"errors"
	"io"
	"strings"

	"github.com/google/pprof/profile"
)

// shares are parts of the processor time of a shard's process, without that of
// preparing events.
type shares struct {
	Digest float64 `json:"digest"` // chain, digests and marks, of all
	Call   float64 `json:"call"`   // the calls of Apply, of all; the rest is compactions, flushes and garbage collection
}

const (
	projectionsPath = "github.com/evenkeel/evenkeel/projections"
	digestPath      = projectionsPath + "/digest."
	applyFunction   = projectionsPath + ".(*Shard).Apply"
)

// digestFunctions are those of package projections that do nothing but keep chain,
// digests and marks; all of package digest does.
var digestFunctions = []string{
	projectionsPath + ".(*logMeta).add", projectionsPath + ".(*logMeta).remove", projectionsPath + ".(*logTurn).keepMark",
	projectionsPath + ".(*logTurn).mark", projectionsPath + ".(*logTurn).write", projectionsPath + ".(*logTurn).show",
}

var workFunctions = []string{"applybench.(*subject).prepare", "applybench.(*subject).fill"}

// readShares reads a processor profile. Inlined functions are in it by name.
func readShares(f io.ReadSeeker) (shares, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return shares{}, err
	}
	p, err := profile.Parse(f)
	if err != nil {
		return shares{}, err
	}
	return sharesOf(p)
}

func sharesOf(p *profile.Profile) (shares, error) {
	var all, call, digest int64
	for _, s := range p.Sample {
		n := s.Value[0] // how often it was met
		if hasFrame(s, isWork) {
			continue
		}
		all += n
		if !hasFrame(s, func(f string) bool { return f == applyFunction }) {
			continue
		}
		call += n
		if hasFrame(s, isDigest) {
			digest += n
		}
	}
	if digest == 0 {
		return shares{}, errors.New("the profile shows no digests: too short, or functions have other names now")
	}
	return shares{Digest: float64(digest) / float64(all), Call: float64(call) / float64(all)}, nil
}

func hasFrame(s *profile.Sample, is func(function string) bool) bool {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil && is(line.Function.Name) {
				return true
			}
		}
	}
	return false
}

func isWork(function string) bool {
	for _, f := range workFunctions {
		if strings.HasSuffix(function, f) {
			return true
		}
	}
	return false
}

func isDigest(function string) bool {
	if strings.HasPrefix(function, digestPath) {
		return true
	}
	for _, f := range digestFunctions {
		if function == f {
			return true
		}
	}
	return false
}
