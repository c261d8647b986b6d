package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/evenkeel/evenkeel/events"
)

// maxFileBytes bounds every file that is read here.
const maxFileBytes = 1 << 20

// Load reads the configuration in the file at path, overridden by environ
// ("NAME=value", as from os.Environ; nil: nothing). A file that is not there is
// of kind events.KindNotFound.
func Load(path string, environ []string) (*Config, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, events.Errorf(events.KindNotFound, "configuration: %w", err)
	}
	if err != nil {
		return nil, events.Errorf(events.KindInvalid, "configuration: %w", err)
	}
	return Parse(path, text, environ)
}

// Parse reads a configuration as Load does; name is what errors call the file.
func Parse(name string, text []byte, environ []string) (*Config, error) {
	p := &problems{places: map[string]place{}, failed: map[string]bool{}}
	root, err := parseYAML(text)
	if err != nil {
		p.addLine("", err.line, err.message)
		return nil, p.err(name)
	}
	c := Default()
	c.Streams = nil // those of the file replace the defaults
	d := &decoder{problems: p}
	if root != nil {
		d.config(root, &c)
	}
	if c.Streams == nil {
		c.Streams = defaultStreams()
	}
	env, known := parseEnviron(environ), variables(&c)
	d.override(&c, known, env)
	c.derive()
	c.resolvePasswords(env)
	c.checkEnviron(p, known, env)
	c.check(p)
	if err := p.err(name); err != nil {
		return nil, err
	}
	return &c, nil
}

// derive fills in the defaults that depend on other keys.
func (c *Config) derive() {
	if c.Backup != nil && c.Backup.Region == "" {
		c.Backup.Region = string(c.Region)
	}
	if c.Backup != nil {
		for name, copied := range c.Backup.Copies {
			copied.Region = cmp.Or(copied.Region, c.Backup.Region)
			c.Backup.Copies[name] = copied
		}
	}
	if own, ok := c.Regions[c.Region]; ok && own.API == "" {
		own.API = c.API.url()
		c.Regions[c.Region] = own
	}
}

// url is the URL of what the API listens on, or empty if it is not known.
func (a API) url() string {
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil || port == "0" || isEverywhere(host) {
		return ""
	}
	return "http://" + a.Listen
}

// ListensOnOne reports whether the API listens on a single address, by which other
// nodes may find it.
func (a API) ListensOnOne() bool {
	host, ok := splitListen(a.Listen)
	return ok && !isEverywhere(host)
}

// resolvePasswords takes passwords and identities out of the environment.
func (c *Config) resolvePasswords(env map[string]string) {
	for name, r := range c.Regions {
		if r.Kafka.SASL.PasswordEnv != "" {
			r.Kafka.SASL.Password = Secret(env[r.Kafka.SASL.PasswordEnv])
			c.Regions[name] = r
		}
	}
	if c.Backup != nil && c.Backup.IdentityEnv != "" {
		c.Backup.Identity = Secret(env[c.Backup.IdentityEnv])
	}
}

// syntaxError says why a text is no YAML.
type syntaxError struct {
	line    int // 0 if unknown
	message string
}

// parseYAML reads the one document in text, nil if there is none.
func parseYAML(text []byte) (*yaml.Node, *syntaxError) {
	if i := invalidUTF8(text); i >= 0 {
		return nil, &syntaxError{line: 1 + bytes.Count(text[:i], []byte("\n")), message: "not UTF-8 text"}
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var document, next yaml.Node
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, newSyntaxError(err)
	}
	switch err := d.Decode(&next); {
	case err == nil:
		return nil, &syntaxError{line: next.Line, message: "a second document begins here; want one"}
	case !errors.Is(err, io.EOF):
		return nil, newSyntaxError(err)
	}
	return document.Content[0], nil
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

var yamlErrorLine = regexp.MustCompile(`^line (\d+): `)

// newSyntaxError takes the line out of an error of the YAML package, which
// counts from 0 in complaints of its parser ("did not find …") and from 1 in
// those of its scanner.
func newSyntaxError(err error) *syntaxError {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &syntaxError{}
	if m := yamlErrorLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		e.line, _ = strconv.Atoi(m[1]) // digits; 0 if far too many
		if strings.HasPrefix(message, "did not find ") {
			e.line++
		}
	}
	e.message = "not YAML: " + message
	return e
}

// readFile reads a whole small file. Its errors name the file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFileBytes)
	}
	return text, err
}
