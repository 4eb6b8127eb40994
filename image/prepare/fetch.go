package prepare

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"halo.internal/image/apt"
	"halo.internal/image/kernel"
	"halo.internal/image/manifest"
	"halo.internal/image/step"
)

// fetched is what comes out of packages: the same for cards and for the test
// machine.
type fetched struct {
	kernel   kernel.Tree
	firmware map[string][]byte // by path on the image
	packages []apt.Package     // the kernel first
}

// fetchLocked gets kernel and firmware as the options and the lock file say,
// and updates the lock file.
func fetchLocked(ctx context.Context, steps step.Printer, opts Options, m manifest.Manifest) (fetched, error) {
	lock, err := apt.ReadLock(filepath.Join(opts.Root, LockFile))
	if err != nil {
		return fetched{}, err
	}
	var warnings []string
	c := &apt.Client{
		Cache: opts.Cache, Arch: architecture, Lock: lock, Warn: func(w string) { warnings = append(warnings, w) },
		Components: components(m.Firmware),
	}
	tree, kernelPackage, err := fetchKernel(ctx, c, opts, m.Kernel)
	if err != nil {
		return fetched{}, err
	}
	lacks, err := tree.Lacks()
	if err != nil {
		return fetched{}, err
	}
	for _, l := range lacks {
		warnings = append(warnings, "kernel "+tree.Release+" lacks "+l)
	}
	packages := []apt.Package{kernelPackage}
	switch {
	case opts.Virtual && opts.KernelDir != "":
		warnings = append(warnings, "kernel "+tree.Release+" is a vendor's: machines of it have no I2C buses and no GPIO lines in the lab")
	case opts.Virtual:
		var p apt.Package
		if tree, p, err = virtualModules(ctx, c, tree); err != nil {
			return fetched{}, err
		}
		packages = append(packages, p)
	}
	if opts.Modules != "" {
		if tree, err = kernel.WithOutside(ctx, opts.Cache, tree, opts.Modules); err != nil {
			return fetched{}, err
		}
	}
	files, more, err := fetchFirmware(ctx, c, m.Firmware)
	if err != nil {
		return fetched{}, err
	}
	if opts.Firmware != "" {
		if err := addFirmware(files, opts.Firmware); err != nil {
			return fetched{}, err
		}
	}
	for _, w := range warnings {
		steps.Note("\nwarning: %s", w)
	}
	return fetched{tree, files, append(packages, more...)}, lock.Save()
}

// components are those that firmware comes from, beside main.
func components(list []manifest.Firmware) []string {
	var all []string
	for _, fw := range list {
		if fw.Component != "" && !slices.Contains(all, fw.Component) {
			all = append(all, fw.Component)
		}
	}
	return all
}

// architecture is Debian's name of the boards' processor.
const architecture = "arm64"

// Kernel's series has many names: linux-image-6.12.9+deb12-arm64,
// linux-image-6.12.9+bpo-arm64.
func kernelForm(k manifest.Kernel) *regexp.Regexp {
	return regexp.MustCompile(`linux-image-` + regexp.QuoteMeta(k.Series) + `\.[0-9]+(\+[a-z0-9.]+)?-` + regexp.QuoteMeta(k.Flavour))
}

func fetchKernel(ctx context.Context, c *apt.Client, opts Options, k manifest.Kernel) (t kernel.Tree, p apt.Package, err error) {
	switch {
	case opts.KernelDir != "":
		t, err = kernel.FromDir(ctx, opts.Cache, opts.KernelDir)
		return t, apt.Package{Name: "kernel-folder", Version: t.Release, SHA256: t.Digest}, err
	case opts.KernelDeb != "":
		t, err = kernel.FromDeb(ctx, opts.Cache, opts.KernelDeb)
		return t, apt.Package{Name: filepath.Base(opts.KernelDeb), Version: t.Release, SHA256: t.Digest}, err
	}
	deb, p, err := c.Fetch(ctx, "kernel", "linux-image-"+k.Series+".", kernelForm(k))
	if err != nil {
		return t, p, err
	}
	t, err = kernel.FromDeb(ctx, opts.Cache, deb)
	return t, p, err
}

// fetchFirmware returns the files that the kernel's drivers load.
func fetchFirmware(ctx context.Context, c *apt.Client, list []manifest.Firmware) (files map[string][]byte, packages []apt.Package, err error) {
	files = map[string][]byte{}
	for _, fw := range list {
		deb, p, err := c.Fetch(ctx, fw.Package, fw.Package, regexp.MustCompile(regexp.QuoteMeta(fw.Package)))
		if err != nil {
			return nil, nil, err
		}
		packages = append(packages, p)
		if err := unpacked(ctx, deb, func(dir string) error {
			from := maps.Clone(fw.Files)
			from[fw.LicenseFile()] = fw.License
			for to, from := range from {
				if files[to], err = os.ReadFile(filepath.Join(dir, from)); err != nil {
					return fmt.Errorf("firmware %s of package %s %s: %w", from, p.Name, p.Version, err)
				}
			}
			return nil
		}); err != nil {
			return nil, nil, err
		}
	}
	return files, packages, nil
}

// mostFirmware bounds a file of firmware: a folder given by mistake would end up
// on the card.
const mostFirmware = 8 << 20

// addFirmware adds the files of a folder. What the manifest has already is not
// replaced.
func addFirmware(files map[string][]byte, dir string) error {
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		to := "/lib/firmware/" + filepath.ToSlash(rel)
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: expected files and folders only", path)
		}
		if files[to] != nil {
			return fmt.Errorf("%s: %s is in the image already, by %s", path, to, manifest.File)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() > mostFirmware {
			return fmt.Errorf("%s: expected at most %d octets, got %d", path, mostFirmware, info.Size())
		}
		found = true
		files[to], err = os.ReadFile(path)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("expected files in %s, such as morse/mm6108.bin, found none", dir)
	}
	if err != nil {
		return fmt.Errorf("firmware from outside: %w", err)
	}
	return nil
}

// unpacked calls f with a folder that holds a package's files for so long.
func unpacked(ctx context.Context, deb string, f func(dir string) error) error {
	dir, err := os.MkdirTemp("", "halo-package-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := apt.Unpack(ctx, deb, dir); err != nil {
		return err
	}
	return f(dir)
}

// Kernel returns the kernel that images are built from, without anything else.
func Kernel(ctx context.Context, steps step.Printer, opts Options) (kernel.Tree, error) {
	m, err := manifest.Read(opts.Root)
	if err != nil {
		return kernel.Tree{}, err
	}
	if err := Fence(opts.Cache); err != nil {
		return kernel.Tree{}, err
	}
	m.Firmware = nil
	var f fetched
	err = steps.Do("kernel package", func() (err error) { f, err = fetchLocked(ctx, steps, opts, m); return err })
	return f.kernel, err
}
