package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const hunter2 = "hunter2-s3cr3t"

// leaked looks for the secret as text and as the hexadecimal digits of %x.
func leaked(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, hunter2) || strings.Contains(s, fmt.Sprintf("%x", hunter2)) ||
		strings.Contains(s, strings.Trim(fmt.Sprint([]byte(hunter2)), "[]"))
}

func TestSecretsDoNotShow(t *testing.T) {
	c := mustParse(t, minimal+"streams: {session: }\n",
		"EVENKEEL_REGIONS__US_EAST_1__KAFKA__SASL__MECHANISM=plain",
		"EVENKEEL_REGIONS__US_EAST_1__KAFKA__SASL__USERNAME=u",
		"EVENKEEL_REGIONS__US_EAST_1__KAFKA__SASL__PASSWORD_ENV=PW",
		"PW="+hunter2)
	secret := c.Own().Kafka.SASL.Password
	if secret.Reveal() != hunter2 {
		t.Fatal("the password was not taken over")
	}
	sasl := c.Own().Kafka.SASL
	for _, v := range []any{*c, c, c.Regions, sasl, &sasl, secret, &secret, []Secret{secret}, map[string]Secret{"password": secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%T", "%08.3v", "%!"} {
			if got := fmt.Sprintf(verb, v); leaked(got) {
				t.Errorf("%s of %T shows it", verb, v)
			}
		}
		if got := fmt.Sprint(v); leaked(got) {
			t.Errorf("Sprint of %T shows it", v)
		}
		for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(handler(&b)).Info("config", "value", v)
			if leaked(b.String()) {
				t.Errorf("slog as %s of %T shows it", name, v)
			}
		}
		if text, err := json.Marshal(v); err != nil || leaked(string(text)) {
			t.Errorf("JSON of %T: error %v, or it shows it", v, err)
		}
		if text, err := yaml.Marshal(v); err != nil || leaked(string(text)) {
			t.Errorf("YAML of %T: error %v, or it shows it", v, err)
		}
	}
}

func TestSecretForms(t *testing.T) {
	for _, tt := range []struct {
		format string
		secret Secret
		want   string
	}{
		{"%v", "x", "[redacted]"},
		{"%s", "x", "[redacted]"},
		{"%d", "x", "[redacted]"},
		{"%12s|", "x", "  [redacted]|"},
		{"%#v", "x", `config.Secret("[redacted]")`},
		{"%v", "", ""},
		{"%#v", "", `config.Secret("")`},
	} {
		if got := fmt.Sprintf(tt.format, tt.secret); got != tt.want {
			t.Errorf("%s of %d bytes: %q, want %q", tt.format, len(tt.secret), got, tt.want)
		}
	}
}

// What looks like a password in a wrong place is not quoted.
func TestErrorsDoNotShowSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(hunter2), 0o600); err != nil {
		t.Fatal(err)
	}
	in := func(kafka string) string { return strings.Replace(minimal, "{kafka: {", "{kafka: {"+kafka+", ", 1) }
	for _, tt := range []struct{ name, text, variable string }{
		{"inline password", in("sasl: {mechanism: plain, username: u, password: " + hunter2 + "}"), ""},
		{"password for a block", in("sasl: " + hunter2), ""},
		{"password for a number", in("sasl: {username: [" + hunter2 + "]}"), ""},
		{"password for a name", in("sasl: {mechanism: plain, username: u, password_env: " + hunter2 + "}"), ""},
		{"two sources", in("sasl: {mechanism: plain, username: u, password_env: PW, password_file: " + file + "}"), "PW=" + hunter2},
		{"in a URL", minimal + "backup: {bucket: abc, endpoint: 'http://u:" + hunter2 + "@s3'}", ""},
		{"in a broken URL", minimal + "backup: {bucket: abc, endpoint: 'http://u:" + hunter2 + "@s3:x y'}", ""},
		{"in a region's URL", strings.Replace(minimal, "{kafka", "{api: 'ftp://u:"+hunter2+"@x', kafka", 1), ""},
		{"in a variable", minimal, "EVENKEEL_REGIONS__US_EAST_1__KAFKA__SASL__PASSWORD=" + hunter2},
		{"in a variable for a URL", minimal, "EVENKEEL_REGIONS__US_EAST_1__API=http://u:" + hunter2 + "@h"},
	} {
		_, err := Parse("f.yaml", []byte(tt.text), []string{tt.variable})
		if err == nil {
			t.Errorf("%s: no error", tt.name)
		} else if leaked(err.Error()) {
			t.Errorf("%s: the error shows it", tt.name)
		}
	}
}
