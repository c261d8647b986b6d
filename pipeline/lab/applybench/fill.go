package applybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// fill makes the two databases of a case, equal to the last byte: a process of its
// own fills a shard's, and the bare loop begins with a copy.
func fill(ctx context.Context, dir string, c Case) error {
	from, to := filepath.Join(dir, systemShard), filepath.Join(dir, systemBare)
	cmd, err := command(ctx, SubjectConfig{System: systemShard, Dir: from, Case: c, Fill: true})
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("filling the database: %w; it wrote %q", err, stderr.String())
	}
	return clone(from, to)
}

// clone copies a closed database. Tables are never changed, so links do for them.
func clone(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		source, dest := filepath.Join(from, f.Name()), filepath.Join(to, f.Name())
		if strings.HasSuffix(f.Name(), ".sst") {
			err = os.Link(source, dest)
		} else {
			err = copyFile(source, dest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
