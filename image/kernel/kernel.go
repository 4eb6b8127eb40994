// Package kernel turns a prebuilt kernel into what an image needs of it: the
// kernel itself, its device trees, and the modules that the packing manifest
// names, with all that they depend on and the indexes a loader reads. A kernel
// comes as a Debian package or as a vendor's folder.
package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"halo.internal/image/apt"
	"halo.internal/image/tool"
)

// Tree is an unpacked kernel.
type Tree struct {
	Release     string   // as in uname -r
	Image       string   // path of the kernel, not compressed
	Modules     string   // path of lib/modules/<release>
	DeviceTrees string   // path of the folder of device trees
	Digest      string   // hex SHA-256 of the package or folder it came from
	Outside     []string // names of modules that are not the package's own; see WithOutside

	exports map[string]uint32 // checksums of the symbols that those export
}

// FromDeb unpacks a Debian kernel package, once, below cache.
func FromDeb(ctx context.Context, cache, deb string) (Tree, error) {
	b, err := os.ReadFile(deb)
	if err != nil {
		return Tree{}, fmt.Errorf("kernel package: %w", err)
	}
	digest := sha256.Sum256(b)
	return unpackOnce(ctx, cache, hex.EncodeToString(digest[:]), func(dir string) error {
		return apt.Unpack(ctx, deb, dir)
	})
}

// FromDir takes a vendor's folder: boot/vmlinuz-<release>,
// lib/modules/<release> and usr/lib/linux-image-<release>, as in a Debian
// package.
func FromDir(ctx context.Context, cache, dir string) (Tree, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		fmt.Fprintf(h, "%s\n%d\n", rel, len(b))
		h.Write(b)
		return err
	})
	if err != nil {
		return Tree{}, fmt.Errorf("kernel folder: %w", err)
	}
	return unpackOnce(ctx, cache, hex.EncodeToString(h.Sum(nil)), func(to string) error {
		return os.CopyFS(to, os.DirFS(dir))
	})
}

// unpackOnce fills <cache>/kernel/<digest> by unpack and indexes its modules.
// The folder appears by a rename when it is whole.
func unpackOnce(ctx context.Context, cache, digest string, unpack func(string) error) (Tree, error) {
	dir := filepath.Join(cache, "kernel", digest)
	if _, err := os.Stat(dir); err == nil {
		return open(dir, digest)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Tree{}, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "unpack-")
	if err != nil {
		return Tree{}, err
	}
	defer os.RemoveAll(tmp)
	if err := unpack(tmp); err != nil {
		return Tree{}, fmt.Errorf("unpack kernel: %w", err)
	}
	t, err := open(tmp, digest)
	if err != nil {
		return Tree{}, err
	}
	if err := plain(t.Image); err != nil {
		return Tree{}, err
	}
	if _, err := tool.Run(ctx, "depmod", "-b", tmp, t.Release); err != nil {
		return Tree{}, err
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return Tree{}, err
	}
	return open(dir, digest)
}

func open(dir, digest string) (Tree, error) {
	releases, err := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
	if err != nil {
		return Tree{}, err
	}
	if len(releases) != 1 {
		return Tree{}, fmt.Errorf("kernel: expected one folder in lib/modules, got %d", len(releases))
	}
	t := Tree{Release: filepath.Base(releases[0]), Modules: releases[0], Digest: digest}
	t.Image = filepath.Join(dir, "boot/vmlinuz-"+t.Release)
	t.DeviceTrees = filepath.Join(dir, "usr/lib/linux-image-"+t.Release)
	if _, err := os.Stat(t.Image); err != nil {
		return Tree{}, fmt.Errorf("kernel: expected boot/vmlinuz-%s: %w", t.Release, err)
	}
	return t, nil
}

// plain replaces a gzip'd kernel by its content: gok looks into it, and a flat
// image boots by EFI, which takes no gzip.
func plain(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		return nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if b, err = io.ReadAll(z); err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	return os.WriteFile(path, b, 0o644)
}
