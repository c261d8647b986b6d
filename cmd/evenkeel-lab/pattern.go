package main

import (
	"regexp"

	"github.com/evenkeel/evenkeel/events"
)

// pattern is a regular expression as a flag's value (pflag.Value).
type pattern struct{ into **regexp.Regexp }

func (p pattern) Type() string { return "regexp" }

func (p pattern) String() string {
	if p.into == nil || *p.into == nil {
		return ""
	}
	return (*p.into).String()
}

func (p pattern) Set(text string) (err error) {
	if *p.into, err = regexp.Compile(text); err != nil {
		return events.Errorf(events.KindInvalid, "%w", err)
	}
	return nil
}
