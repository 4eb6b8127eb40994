package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"halo.internal/hal/card"
)

// maxPartition bounds what is copied to a file to be worked on.
const maxPartition = 256 << 20

// Copy is a copy of one of a card's partitions in a file, for tools that know
// the file system.
type Copy struct {
	Path string
	disk *Disk
	part card.Partition
}

// Copy copies partition n into a file in the folder dir. Commit writes it back,
// Close removes the file.
func (d *Disk) Copy(n int, dir string) (*Copy, error) {
	table, err := card.ReadTable(d, d.size)
	if err != nil {
		return nil, err
	}
	p, ok := table.Partition(n)
	if !ok || p.Size > maxPartition || p.Start+p.Size > d.size {
		return nil, fmt.Errorf("partition %d: expected one of at most %d octets, got %d at %d", n, maxPartition, p.Size, p.Start)
	}
	f, err := os.CreateTemp(dir, "partition-*")
	if err != nil {
		return nil, err
	}
	c := &Copy{Path: f.Name(), disk: d, part: p}
	err = f.Truncate(p.Size)
	buf := make([]byte, 1<<20)
	zero := make([]byte, len(buf))
	for off := int64(0); off < p.Size && err == nil; off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), p.Size-off)]
		if _, err = d.ReadAt(part, p.Start+off); err == nil && !bytes.Equal(part, zero[:len(part)]) {
			_, err = f.WriteAt(part, off)
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close removes the copy.
func (c *Copy) Close() error { return os.Remove(c.Path) }

// Commit writes to the card what was changed in the copy.
func (c *Copy) Commit() error {
	f, err := os.Open(c.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	now, before := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < c.part.Size; off += int64(len(now)) {
		n := int(min(int64(len(now)), c.part.Size-off))
		if _, err := f.ReadAt(now[:n], off); err != nil {
			return err
		}
		if _, err := c.disk.ReadAt(before[:n], c.part.Start+off); err != nil {
			return err
		}
		if bytes.Equal(now[:n], before[:n]) {
			continue
		}
		if _, err := c.disk.WriteAt(now[:n], c.part.Start+off); err != nil {
			return err
		}
	}
	return nil
}

// Boot is a copy of the boot partition, a FAT, which mtools reads and writes.
type Boot struct{ *Copy }

// OpenBoot copies the boot partition.
func (d *Disk) OpenBoot(dir string) (Boot, error) {
	c, err := d.Copy(1, dir)
	return Boot{c}, err
}

// Read returns a file's content, or an error wrapping fs.ErrNotExist.
func (b Boot) Read(ctx context.Context, name string) ([]byte, error) {
	out, err := b.mtools(ctx, nil, "mcopy", "::"+name, "-")
	if err != nil && strings.Contains(err.Error(), "not found") {
		return nil, fmt.Errorf("%s on the boot partition: %w", name, fs.ErrNotExist)
	}
	return out, err
}

// CopyOut copies a file into the folder dir under its own base name.
func (b Boot) CopyOut(ctx context.Context, name, dir string) error {
	_, err := b.mtools(ctx, nil, "mcopy", "-n", "-o", "::"+name, filepath.Join(dir, filepath.Base(name)))
	return err
}

// Write makes or replaces a file.
func (b Boot) Write(ctx context.Context, name string, content []byte) error {
	_, err := b.mtools(ctx, content, "mcopy", "-D", "o", "-", "::"+name)
	return err
}

func (b Boot) mtools(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, append([]string{"-i", b.Path}, args...)...)
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
