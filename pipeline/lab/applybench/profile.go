package applybench

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// shares are parts of the processor time of a shard's process, without that of
// preparing events.
type shares struct {
	Digest float64 `json:"digest"` // chain, digests and marks, of all
	Call   float64 `json:"call"`   // the calls of Apply, of all; the rest is compactions, flushes and garbage collection

	// Samples is of how many samples the profile is; the shares are 0 if they are
	// fewer than samplesMin.
	Samples int64 `json:"samples"`
}

// samplesMin keep the standard error of a share of 5 % near 1 %.
const samplesMin = 300

const (
	projectionsPath = "github.com/evenkeel/evenkeel/projections"
	digestPath      = projectionsPath + "/digest."
	applyFunction   = projectionsPath + ".(*Shard).Apply"
)

// digestMethods are those of package projections that do nothing but keep chain,
// digests and marks, as all of package digest does. What they put into Pebble's
// batch is about 10 bytes an event, and not counted.
var digestMethods = []string{
	"(*logMeta).add", "(*logMeta).remove", "(*logTurn).keepMark", "(*logTurn).mark", "(*logTurn).write", "(*logTurn).show",
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
	if all < samplesMin {
		return shares{Samples: all}, nil
	}
	if digest == 0 {
		return shares{}, errors.New("the profile shows no digests: have functions other names now?")
	}
	return shares{Digest: float64(digest) / float64(all), Call: float64(call) / float64(all), Samples: all}, nil
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
	return slices.ContainsFunc(workFunctions, func(f string) bool { return strings.HasSuffix(function, f) })
}

func isDigest(function string) bool {
	if strings.HasPrefix(function, digestPath) {
		return true
	}
	method, ok := strings.CutPrefix(function, projectionsPath+".")
	return ok && slices.Contains(digestMethods, method)
}
