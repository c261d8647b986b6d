package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// splitListen takes apart what to listen on; an empty host means everywhere.
func splitListen(listen string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(listen)
	_, portOK := parsePort(port, 0)
	return host, err == nil && portOK && (host == "" || isHost(host))
}

// parseSeed makes host:port comparable.
func parseSeed(seed string) (address string, ok bool) {
	host, portText, err := net.SplitHostPort(seed)
	port, portOK := parsePort(portText, 1)
	if err != nil || !portOK || !isHost(host) {
		return "", false
	}
	return canonical(host, port), true
}

// parseURL reads a URL of scheme, host, port and path. Errors do not quote it,
// since it may hold a password.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.User != nil:
		return nil, errors.New("a URL here may hold no name and password")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("want a URL that begins with http:// or https://")
	case !isHost(u.Hostname()):
		return nil, errors.New("the URL has no proper host")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("the URL may have no ? and no #")
	}
	if _, ok := parsePort(u.Port(), 1); !ok && u.Port() != "" {
		return nil, errors.New("the URL's port is not in 1 to 65535")
	}
	return u, nil
}

// addressOf makes where a URL leads comparable.
func addressOf(u *url.URL) string {
	port, ok := parsePort(u.Port(), 1)
	if !ok {
		port = map[string]int{"http": 80, "https": 443}[u.Scheme]
	}
	return canonical(u.Hostname(), port) + strings.TrimRight(u.Path, "/")
}

func parsePort(text string, least int) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil && int(n) >= least
}

// isHost reports whether host may be a name or an IP address.
func isHost(host string) bool {
	return isIPAddress(host) || host != "" && len(host) <= 253 && strings.Trim(host, nameChars) == ""
}

// canonical is one text for the ways to write one address.
func canonical(host string, port int) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

func isIPAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// isEverywhere reports whether listening on host means all addresses.
func isEverywhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}
