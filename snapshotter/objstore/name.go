package objstore

import (
	"fmt"
	"strings"
)

const (
	// MaxNameBytes is the longest allowed name, prefixes included.
	MaxNameBytes = 1024
	// MaxSegmentBytes is the longest allowed part between two slashes: what
	// stores on a file system can hold.
	MaxSegmentBytes = 255
)

// ValidateName says whether name may be used for an object: 1 to [MaxNameBytes]
// bytes of [A-Za-z0-9._=/-], neither starting nor ending with "/", no segment
// empty, "." or "..", none longer than [MaxSegmentBytes]. The set needs no
// escaping in a URL, a shell, XML or a file system. The error is [ErrInvalid].
func ValidateName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: empty name", ErrInvalid)
	}
	if err := validateChars(name); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case segment == "":
			return fmt.Errorf("%w: name %q has an empty segment", ErrInvalid, name)
		case segment == "." || segment == "..":
			return fmt.Errorf("%w: name %q has the segment %q", ErrInvalid, name, segment)
		case len(segment) > MaxSegmentBytes:
			return fmt.Errorf("%w: name has a segment of %d bytes, at most %d are allowed", ErrInvalid, len(segment), MaxSegmentBytes)
		}
	}
	return nil
}

// validatePrefix says whether prefix can be the beginning of a valid name.
func validatePrefix(prefix string) error {
	if err := validateChars(prefix); err != nil {
		return err
	}
	if strings.HasPrefix(prefix, "/") || strings.Contains(prefix, "//") {
		return fmt.Errorf("%w: prefix %q has an empty segment", ErrInvalid, prefix)
	}
	return nil
}

func validateChars(s string) error {
	if len(s) > MaxNameBytes {
		return fmt.Errorf("%w: name of %d bytes, at most %d are allowed", ErrInvalid, len(s), MaxNameBytes)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("._=/-", c) >= 0:
		default:
			return fmt.Errorf("%w: name %q has %q at byte %d; allowed are letters, digits and ._=/-", ErrInvalid, s, c, i)
		}
	}
	return nil
}
