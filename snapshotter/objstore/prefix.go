package objstore

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Prefix narrows b to the objects under the folder prefix ("a/b" and "a/b/" are
// the same; "" is b itself). Names go in and come out without the prefix; errors
// carry the full name. A prefix that is no valid name makes every call fail with
// [ErrInvalid].
func Prefix(b Bucket, prefix string) Bucket {
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return b
	}
	return &prefixed{b: b, prefix: prefix + "/"}
}

type prefixed struct {
	b      Bucket
	prefix string // ends with "/"
}

var _ Bucket = (*prefixed)(nil)

func (p *prefixed) Get(ctx context.Context, name string) (io.ReadCloser, Info, error) {
	if err := p.check(OpGet, name); err != nil {
		return nil, Info{}, err
	}
	rc, info, err := p.b.Get(ctx, p.prefix+name)
	return rc, p.strip(info), err
}

func (p *prefixed) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := p.check(OpGetRange, name); err != nil {
		return nil, err
	}
	return p.b.GetRange(ctx, p.prefix+name, offset, length)
}

func (p *prefixed) Stat(ctx context.Context, name string) (Info, error) {
	if err := p.check(OpStat, name); err != nil {
		return Info{}, err
	}
	info, err := p.b.Stat(ctx, p.prefix+name)
	return p.strip(info), err
}

func (p *prefixed) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return p.ListAfter(ctx, prefix, "")
}

func (p *prefixed) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	if after != "" {
		after = p.prefix + after
	}
	return func(yield func(Info, error) bool) {
		for info, err := range p.b.ListAfter(ctx, p.prefix+prefix, after) {
			if err == nil && info.Name == p.prefix {
				continue // a folder marker that some console left
			}
			if !yield(p.strip(info), err) {
				return
			}
		}
	}
}

func (p *prefixed) Create(ctx context.Context, name string, body []byte) error {
	if err := p.check(OpCreate, name); err != nil {
		return err
	}
	return p.b.Create(ctx, p.prefix+name, body)
}

func (p *prefixed) Delete(ctx context.Context, name string) error {
	if err := p.check(OpDelete, name); err != nil {
		return err
	}
	return p.b.Delete(ctx, p.prefix+name)
}

func (p *prefixed) DeleteAll(ctx context.Context, names []string) []error {
	errs := make([]error, len(names))
	var full []string
	var places []int
	for i, name := range names {
		if errs[i] = p.check(OpDelete, name); errs[i] == nil {
			full, places = append(full, p.prefix+name), append(places, i)
		}
	}
	for n, err := range p.b.DeleteAll(ctx, full) {
		errs[places[n]] = err
	}
	return errs
}

func (p *prefixed) Thaw(ctx context.Context, name string, days int) (bool, error) {
	if err := p.check(OpThaw, name); err != nil {
		return false, err
	}
	return p.b.Thaw(ctx, p.prefix+name, days)
}

func (p *prefixed) Holds(ctx context.Context, names []string) ([]Hold, error) {
	full := make([]string, len(names))
	for i, name := range names {
		if err := p.check(OpHolds, name); err != nil {
			return nil, err
		}
		full[i] = p.prefix + name
	}
	return p.b.Holds(ctx, full)
}

func (p *prefixed) Check(ctx context.Context) error { return p.b.Check(ctx) }

func (p *prefixed) String() string { return fmt.Sprintf("%s under %s", p.b, p.prefix) }

// check refuses an empty name, which the joined name would hide.
func (p *prefixed) check(op, name string) error {
	if err := ValidateName(name); err != nil {
		return &Error{Op: op, Bucket: p.String(), Object: name, Kind: ErrInvalid, Err: err}
	}
	return nil
}

func (p *prefixed) strip(info Info) Info {
	info.Name = strings.TrimPrefix(info.Name, p.prefix)
	return info
}
