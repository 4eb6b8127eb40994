package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"halo.internal/hal/card"
)

// maxBoot bounds a boot partition, which is copied to a file to be worked on.
const maxBoot = 256 << 20

// Boot is a copy of a card's boot partition, a FAT, for mtools.
type Boot struct {
	disk *Disk
	part card.Partition
	path string
}

// OpenBoot copies the boot partition into a file in the folder dir. Commit
// writes it back, Close removes the file.
func (d *Disk) OpenBoot(dir string) (*Boot, error) {
	table, err := card.ReadTable(d, d.size)
	if err != nil {
		return nil, err
	}
	p, ok := table.Partition(1)
	if !ok || p.Size > maxBoot || p.Start+p.Size > d.size {
		return nil, fmt.Errorf("boot partition: expected one of at most %d octets, got %d at %d", maxBoot, p.Size, p.Start)
	}
	f, err := os.CreateTemp(dir, "boot-*.fat")
	if err != nil {
		return nil, err
	}
	b := &Boot{disk: d, part: p, path: f.Name()}
	err = f.Truncate(p.Size)
	buf := make([]byte, 1<<20)
	zero := make([]byte, len(buf))
	for off := int64(0); off < p.Size && err == nil; off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), p.Size-off)]
		if _, err = d.ReadAt(part, p.Start+off); err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if err = nil; !bytes.Equal(part, zero[:len(part)]) {
			_, err = f.WriteAt(part, off)
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close removes the copy.
func (b *Boot) Close() error { return os.Remove(b.path) }

// Commit writes to the card what was changed in the copy.
func (b *Boot) Commit() error {
	f, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer f.Close()
	now, before := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < b.part.Size; off += int64(len(now)) {
		n := int(min(int64(len(now)), b.part.Size-off))
		if _, err := f.ReadAt(now[:n], off); err != nil {
			return err
		}
		if _, err := b.disk.ReadAt(before[:n], b.part.Start+off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(now[:n], before[:n]) {
			continue
		}
		if _, err := b.disk.WriteAt(now[:n], b.part.Start+off); err != nil {
			return err
		}
	}
	return nil
}

// Read returns a file's content, or an error wrapping fs.ErrNotExist.
func (b *Boot) Read(ctx context.Context, name string) ([]byte, error) {
	out, err := b.mtools(ctx, nil, "mcopy", "::"+name, "-")
	if err != nil && strings.Contains(err.Error(), "not found") {
		return nil, fmt.Errorf("%s on the boot partition: %w", name, fs.ErrNotExist)
	}
	return out, err
}

// CopyOut copies a file into the folder dir under its own base name.
func (b *Boot) CopyOut(ctx context.Context, name, dir string) error {
	_, err := b.mtools(ctx, nil, "mcopy", "-n", "-o", "::"+name, filepath.Join(dir, filepath.Base(name)))
	return err
}

// Write makes or replaces a file.
func (b *Boot) Write(ctx context.Context, name string, content []byte) error {
	_, err := b.mtools(ctx, content, "mcopy", "-D", "o", "-", "::"+name)
	return err
}

func (b *Boot) mtools(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, append([]string{"-i", b.path}, args...)...)
	// What a user configured for their own drives is not for us.
	c.Env = append(os.Environ(), "MTOOLSRC="+os.DevNull, "MTOOLS_SKIP_CHECK=1", "TZ=UTC")
	c.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s: %w; on Debian: apt-get install mtools", name, err)
		}
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
