// Package fat makes and edits FAT file systems inside image files and on
// devices, through mtools: without mounting, without root, and with the same
// octets for the same files.
package fat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"halo.internal/image/tool"
)

// label is that of every HALO boot partition.
const label = "HALO-BOOT"

// Create makes the file at path a FAT32 of size octets with the given files
// (slash-separated names), all with the time when.
func Create(ctx context.Context, file string, size int64, when time.Time, files map[string][]byte) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	epoch := fmt.Sprintf("SOURCE_DATE_EPOCH=%d", when.Unix())
	// Clusters of 1 KiB: FAT32, as the partition table says, needs 65525 of them.
	if _, err := (tool.Command{Name: "mkfs.vfat", Args: []string{"-F", "32", "-s", "2", "-n", label, "--invariant", file}, Env: []string{epoch, "TZ=UTC"}}).Run(ctx); err != nil {
		return err
	}

	dir, err := os.MkdirTemp(filepath.Dir(file), ".fat-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	names := make([]string, 0, len(files))
	for name, b := range files {
		names = append(names, name)
		to := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o644), os.Chtimes(to, when, when)); err != nil {
			return err
		}
	}
	slices.Sort(names) // one at a time and sorted: a folder's order on the disk is that of copying
	v := Volume{Path: file}
	made := map[string]bool{".": true}
	for _, name := range names {
		if d := path.Dir(name); !made[d] {
			made[d] = true
			if _, err := v.run(ctx, epoch, "mmd", "::"+d); err != nil {
				return err
			}
		}
		if _, err := v.run(ctx, epoch, "mcopy", "-m", filepath.Join(dir, name), "::"+name); err != nil {
			return fmt.Errorf("copy %s of %d octets: %w", name, len(files[name]), err)
		}
	}
	return nil
}

// Volume is a FAT file system at an offset of an image file or device.
type Volume struct {
	Path   string
	Offset int64
}

func (v Volume) run(ctx context.Context, env, name string, args ...string) ([]byte, error) {
	image := v.Path
	if v.Offset != 0 {
		image = fmt.Sprintf("%s@@%d", v.Path, v.Offset)
	}
	// MTOOLSRC: what a user configured for their own drives is not for us.
	c := tool.Command{Name: name, Args: append([]string{"-i", image}, args...), Env: []string{"MTOOLSRC=" + os.DevNull, "MTOOLS_SKIP_CHECK=1", "TZ=UTC"}}
	if env != "" {
		c.Env = append(c.Env, env)
	}
	return c.Run(ctx)
}

// Read returns a file's content, or an error wrapping fs.ErrNotExist.
func (v Volume) Read(ctx context.Context, name string) ([]byte, error) {
	b, err := v.run(ctx, "", "mcopy", "::"+name, "-")
	if err != nil && strings.Contains(err.Error(), "not found") {
		return nil, fmt.Errorf("%s on the boot partition: %w", name, fs.ErrNotExist)
	}
	return b, err
}

// ErrFull is wrapped where a file does not fit.
var ErrFull = errors.New("no room on the boot partition")

// Write replaces a file, whatever the case of its name, and reads it back. The
// old file stays until the new one is whole: it may be the only one of its
// kind.
func (v Volume) Write(ctx context.Context, name string, b []byte) error {
	tmp, err := os.CreateTemp("", "halo-fat-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	fresh := name + ".new"
	if _, err := v.run(ctx, "", "mcopy", "-o", tmp.Name(), "::"+fresh); err != nil {
		if strings.Contains(err.Error(), "Disk full") {
			err = fmt.Errorf("%s of %d octets: %w", name, len(b), ErrFull)
		}
		return errors.Join(err, v.Remove(ctx, fresh))
	}
	got, err := v.Read(ctx, fresh)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("%s on the boot partition: wrote %d octets, read back %d that differ", name, len(b), len(got))
	}
	if err := v.Remove(ctx, name); err != nil {
		return err
	}
	_, err = v.run(ctx, "", "mren", "::"+fresh, "::"+name)
	return err
}

// Remove removes a file; one that is not there is no error.
func (v Volume) Remove(ctx context.Context, name string) error {
	if _, err := v.Read(ctx, name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	_, err := v.run(ctx, "", "mdel", "::"+name)
	return err
}
