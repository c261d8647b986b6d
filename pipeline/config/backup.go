package config

import (
	"regexp"
	"slices"
	"strings"
)

var (
	bucketName   = regexp.MustCompile(`^[A-Za-z0-9._-]{3,255}$`)
	bucketFolder = regexp.MustCompile(`^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*/?$`)
	awsRegion    = regexp.MustCompile(`^[a-z0-9-]+$`)
)

const maxFolderBytes = 255 // so no part is longer than stores on a file system take

func (b Backup) check(p *problems) {
	switch {
	case b.Bucket == "":
		p.add("backup.bucket", "missing: where do backups go? Leave the whole block out for none")
	case !bucketName.MatchString(b.Bucket):
		p.add("backup.bucket", "want 3 to 255 letters, digits, dots, underscores and dashes, got %q", clip(b.Bucket))
	}
	if b.Prefix != "" && (len(b.Prefix) > maxFolderBytes || !bucketFolder.MatchString(b.Prefix) || hasDots(b.Prefix)) {
		p.add("backup.prefix", "want names of letters, digits and ._=- between slashes, none first, at most %d bytes, got %q", maxFolderBytes, clip(b.Prefix))
	}
	if b.Region != "" && !awsRegion.MatchString(b.Region) {
		p.add("backup.region", "want lower-case letters, digits and dashes, got %q", clip(b.Region))
	}
	if b.Endpoint != "" {
		b.checkEndpoint(p)
	}
}

func (b Backup) checkEndpoint(p *problems) {
	const path = "backup.endpoint"
	switch u, err := parseURL(b.Endpoint); {
	case err != nil:
		p.add(path, "%s", err)
	case strings.Trim(u.Path, "/") != "":
		p.add(path, "want only scheme, host and port; bucket and folder have keys of their own")
	case isIPAddress(u.Hostname()) && !b.PathStyle:
		p.add(path, "is an IP address, which needs backup.path_style to be true")
	}
}

// hasDots tells of "." and "..", which some stores take for directories.
func hasDots(folder string) bool {
	return slices.ContainsFunc(strings.Split(folder, "/"), func(s string) bool { return s == "." || s == ".." })
}
