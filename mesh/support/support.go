// Package support packs what helps from afar to find out what ails a device: one
// tar.gz of what it says of itself, with no secret in it. What its sources say is
// free of secrets already; should one ever tell a secret that the device knows,
// that is cut out here.
package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// Bounds.
const (
	MaxFile    = 1 << 20  // octets of one source, of which the last count
	MaxBundle  = 12 << 20 // of all, unpacked
	sourceWait = 10 * time.Second
	minSecret  = 4 // a shorter one would cut words up
)

// Source is one file of a bundle.
type Source struct {
	Name string
	Read func(context.Context) ([]byte, error)
}

// missing is the file that says which sources there were not.
const missing = "missing.txt"

// hidden stands where a secret was.
var hidden = []byte("[secret]")

// Write packs the sources. One that fails is named in missing.txt; an error is
// the writer's alone.
func Write(ctx context.Context, w io.Writer, now time.Time, sources []Source, secrets []string) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	add := func(name string, b []byte) error {
		err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "halo-support/" + name, Mode: 0o600, Size: int64(len(b)), ModTime: now, Format: tar.FormatPAX})
		if err == nil {
			_, err = t.Write(b)
		}
		return err
	}
	var lacks bytes.Buffer
	total := 0
	for _, s := range sources {
		b, err := read(ctx, s, secrets)
		if err == nil && total+len(b) > MaxBundle {
			err = errors.New("no room is left in the bundle")
		}
		if err != nil {
			fmt.Fprintf(&lacks, "%s: %v\n", s.Name, err)
			continue
		}
		total += len(b)
		if err := add(s.Name, b); err != nil {
			return fmt.Errorf("support bundle: %w", err)
		}
	}
	if err := errors.Join(add(missing, scrub(lacks.Bytes(), secrets)), t.Close(), z.Close()); err != nil {
		return fmt.Errorf("support bundle: %w", err)
	}
	return nil
}

// read returns what a source says. One that waits in the kernel, whatever becomes of ctx,
// is left to itself: a bundle is wanted most when a driver hangs. Secrets go before it is
// cut: half of one would not be found.
func read(ctx context.Context, s Source, secrets []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, sourceWait)
	defer cancel()
	type answer struct {
		b   []byte
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { // as net/http does, in whose goroutine it would be otherwise
			if p := recover(); p != nil {
				answers <- answer{nil, fmt.Errorf("panic: %v", p)}
			}
		}()
		b, err := s.Read(ctx)
		answers <- answer{b, err}
	}()
	var got answer
	select {
	case got = <-answers:
	case <-ctx.Done():
		return nil, fmt.Errorf("expected an answer within %s, got none: %w", sourceWait, ctx.Err())
	}
	b, err := scrub(got.b, secrets), got.err
	if len(b) > MaxFile {
		b = b[len(b)-MaxFile:]
	}
	return b, err
}

// scrub cuts secrets out. Longer ones first, since one may be part of another.
func scrub(b []byte, secrets []string) []byte {
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		b = bytes.ReplaceAll(b, []byte(s), hidden)
		if quoted, err := json.Marshal(s); err == nil { // as JSON writes it
			b = bytes.ReplaceAll(b, quoted[1:len(quoted)-1], hidden)
		}
		quoted := strconv.Quote(s) // as slog does
		b = bytes.ReplaceAll(b, []byte(quoted[1:len(quoted)-1]), hidden)
	}
	return b
}
