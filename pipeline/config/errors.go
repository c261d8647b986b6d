package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/evenkeel/evenkeel/events"
)

// Error lists all problems of a configuration. It comes within an events.Error
// of kind events.KindInvalid; use errors.As.
type Error struct {
	File     string    // as given to Load or Parse; empty for a Config made in code
	Problems []Problem // at least one, by line
}

// Problem is one thing to mend.
type Problem struct {
	Path    string // e.g. "regions.us-east-1.kafka.seeds[0]", or the name of a variable; empty: the file as a whole
	Line    int    // from 1; 0 if it has none. What is missing has the line of what it is missing from
	Message string // one line
}

// Error prints one problem per line, as "FILE:LINE: path: message".
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		if e.File != "" {
			b.WriteString(e.File)
			if p.Line > 0 {
				fmt.Fprintf(&b, ":%d", p.Line)
			}
			b.WriteString(": ")
		}
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.Message)
	}
	return b.String()
}

// place is where a value came from.
type place struct {
	line     int
	variable string // of the environment; the line is then 0
}

// problems collects what is wrong, and knows where things stand.
type problems struct {
	list   []Problem
	places map[string]place
	failed map[string]bool // paths that could not be read: what is found of them later is not their fault
}

// unreadable adds a problem of a value that could not be taken over.
func (p *problems) unreadable(path, format string, args ...any) {
	p.add(path, format, args...)
	p.failed[path] = true
}

// add adds a problem of what stands, or is missing, at path.
func (p *problems) add(path, format string, args ...any) {
	for at := path; ; at = parent(at) {
		if p.failed[at] {
			return
		}
		if at == "" {
			break
		}
	}
	message := fmt.Sprintf(format, args...)
	here, known := p.places[path]
	if here.variable != "" {
		message += " (from " + here.variable + ")"
	}
	for at := parent(path); !known && at != ""; at = parent(at) {
		here, known = p.places[at]
	}
	p.addLine(path, here.line, message)
}

func (p *problems) addLine(path string, line int, message string) {
	p.list = append(p.list, Problem{Path: path, Line: line, Message: oneLine(message)})
}

// err is nil if there is no problem.
func (p *problems) err(file string) error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &events.Error{Kind: events.KindInvalid, Err: &Error{File: file, Problems: p.list}}
}

// parent is the path of what path is in, empty at the top.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// child is the path of a key in what stands at path.
func child(path, key string) string {
	if !isPlain(key) {
		key = fmt.Sprintf("%q", clip(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// indexed is the path of entry i of the list at path.
func indexed(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func isPlain(key string) bool {
	return key != "" && len(key) <= clipBytes && strings.IndexFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}) < 0
}

const clipBytes = 80

// clip bounds what a message quotes.
func clip(s string) string {
	if len(s) > clipBytes {
		return s[:clipBytes] + "…"
	}
	return s
}

// oneLine keeps text from elsewhere (names of files, say) on one line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
