// Package prepare gathers everything that gok needs beside Go packages: the
// version stamp, the rendered instances, the kernel with its chosen modules,
// the initramfs and the firmware. After it, plain gok builds an image.
package prepare

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/image/apt"
	"halo.internal/image/instance"
	"halo.internal/image/kernel"
	"halo.internal/image/layout"
	"halo.internal/image/manifest"
	"halo.internal/image/step"
	"halo.internal/image/tool"
	"halo.internal/model/atomicfile"
	"halo.internal/model/version"
)

// LockFile records the versions and hashes of fetched packages.
const LockFile = "gokr-packer.lock.json"

// Options are the choices of a build.
type Options struct {
	Root      string // top of the repository
	Cache     string // what was fetched, and can be fetched again
	KernelDeb string // a kernel package to take instead of the locked one
	KernelDir string // a vendor's kernel folder to take instead
	Modules   string // folder of modules from outside to put in, as halo-image modules makes it
	Firmware  string // folder of firmware to put below /lib/firmware, beside the manifest's
	Virtual   bool   // put in the drivers of virtual machines' buses (modules.Virtual)
}

// Result is what later steps of an image build on.
type Result struct {
	Manifest manifest.Manifest
	Boards   []manifest.Board
	Stamp    version.Info
	Kernel   kernel.Tree
	Packages []apt.Package // for the bill of materials, the kernel first
	Initrd   []byte
	Perm     []byte // gzip'd empty ext4
	Firmware string // folder of gokrazy's firmware module

	opts Options
}

// Run prepares everything.
func Run(ctx context.Context, steps step.Printer, opts Options) (*Result, error) {
	m, err := manifest.Read(opts.Root)
	if err != nil {
		return nil, err
	}
	if err := Fence(opts.Cache); err != nil {
		return nil, err
	}
	r := &Result{Manifest: m, opts: opts}
	if r.Boards, err = manifest.Boards(opts.Root); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"version stamp", func() (err error) { r.Stamp, err = Stamp(ctx, opts.Root); return err }},
		{"gokrazy instances", func() error { return Render(opts.Root, m, r.Boards) }},
		{"kernel and firmware packages", func() error { return r.fetch(ctx, steps) }},
		{"drivers of all boards", func() error { return r.drivers(ctx) }},
		{"initramfs", func() error { return r.initramfs(ctx) }},
		{"kernel for gok", func() error { return r.kernelPackage(ctx) }},
		{"firmware for gok", func() error { return r.firmwarePackage(ctx) }},
	} {
		if err := steps.Do(s.name, s.do); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Fence makes dir, if needed, and keeps the go tool and gok out of it: gok
// hashes the whole repository for its own bill of materials, except for folders
// that are modules of their own.
func Fence(dir string) error {
	return put(dir, "go.mod", []byte("// This folder holds no part of HALO's sources.\nmodule fence\n"))
}

// Render writes the instances that differ from manifest and boards.
func Render(root string, m manifest.Manifest, boards []manifest.Board) error {
	files, err := instance.Render(root, m, boards)
	if err != nil {
		return err
	}
	return instance.Write(root, files)
}

func (r *Result) fetch(ctx context.Context, steps step.Printer) error {
	f, err := fetchLocked(ctx, steps, r.opts, r.Manifest)
	if err != nil {
		return err
	}
	r.Kernel, r.Packages = f.kernel, f.packages
	return r.replace(instance.Files, func(dir string) error {
		for name, b := range f.firmware {
			if err := put(dir, strings.TrimPrefix(name, "/lib/firmware/"), b); err != nil {
				return err
			}
		}
		return nil
	})
}

// replace fills a folder below instance/prepared anew; the old one stays until
// the new one is whole.
func (r *Result) replace(name string, fill func(dir string) error) error {
	parent := filepath.Join(r.opts.Root, instance.Dir, instance.Prepared)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	to := filepath.Join(parent, name)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

func put(dir, name string, b []byte) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// goPackage makes dir a Go module with an empty package, the form in which gok
// takes kernel and firmware.
func goPackage(dir, name string) error {
	doc := fmt.Sprintf("// Package %s holds no code: gok copies the files beside it into the image.\npackage %s\n", name, name)
	mod := fmt.Sprintf("module halo.internal/prepared/%s\n\ngo 1.26\n", name)
	if err := put(dir, name+".go", []byte(doc)); err != nil {
		return err
	}
	return put(dir, "go.mod", []byte(mod))
}

// ModuleNames returns all modules that the manifest names, and those from
// outside.
func ModuleNames(m manifest.Manifest, t kernel.Tree) []string {
	names := slices.Clone(t.Outside)
	for _, p := range manifest.Purposes() {
		names = append(names, m.Kernel.Modules[p]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Gzip compresses a kernel for a slot; the result is kept in the cache, for it
// takes seconds and the kernel seldom changes.
func (r *Result) Gzip() ([]byte, error) {
	path := filepath.Join(r.opts.Cache, "kernel", r.Kernel.Digest+"."+layout.Kernel+".gz")
	if b, err := os.ReadFile(path); err == nil {
		return b, nil
	}
	b, err := os.ReadFile(r.Kernel.Image)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(b); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), atomicfile.Write(path, out.Bytes(), 0o644)
}

// firmwareModule returns the folder of gokrazy's firmware package.
func firmwareModule(ctx context.Context, root string) (string, error) {
	out, err := tool.Command{Name: "go", Args: []string{"list", "-m", "-f", "{{.Dir}}", "github.com/gokrazy/firmware"}, Dir: root}.Run(ctx)
	if dir := strings.TrimSpace(string(out)); err == nil && dir == "" {
		if _, err = (tool.Command{Name: "go", Args: []string{"mod", "download", "github.com/gokrazy/firmware"}, Dir: root}).Run(ctx); err != nil {
			return "", err
		}
		out, err = tool.Command{Name: "go", Args: []string{"list", "-m", "-f", "{{.Dir}}", "github.com/gokrazy/firmware"}, Dir: root}.Run(ctx)
	}
	return strings.TrimSpace(string(out)), err
}
