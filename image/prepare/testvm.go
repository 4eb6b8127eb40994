package prepare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"halo.internal/image/apt"
	"halo.internal/image/manifest"
	"halo.internal/image/step"
	"halo.internal/model/atomicfile"
	"halo.internal/model/cpio"
	"halo.internal/model/paths"
)

// TestVM makes in out what the test machine boots (lab/testvm adds a test
// binary): the cards' kernel, an archive of all modules and firmware of the
// manifest and its test modules, and an archive for each of its test packages.
func TestVM(ctx context.Context, steps step.Printer, opts Options, out string) error {
	opts.Virtual = true
	m, err := manifest.Read(opts.Root)
	if err != nil {
		return err
	}
	if err := errors.Join(Fence(opts.Cache), Fence(out)); err != nil {
		return err
	}
	var f fetched
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"kernel and firmware packages", func() (err error) { f, err = fetchLocked(ctx, steps, opts, m); return err }},
		{"root of the test machine", func() error { return testRoot(ctx, f, m, out) }},
		{"packages of the test machine", func() error { return testPackages(ctx, opts, m.TestPackages, out) }},
	} {
		if err := steps.Do(s.name, s.do); err != nil {
			return err
		}
	}
	return nil
}

func testRoot(ctx context.Context, f fetched, m manifest.Manifest, out string) error {
	index, err := f.kernel.Index()
	if err != nil {
		return err
	}
	chosen, err := index.Select(append(ModuleNames(m, f.kernel), m.TestModules...))
	if err != nil {
		return err
	}
	modules, err := index.Files(ctx, chosen, m.Kernel.Held)
	if err != nil {
		return err
	}
	a := cpio.Archive{}
	for name, b := range modules {
		a.File(path.Join(paths.ModulesDir, f.kernel.Release, name), 0o644, b)
	}
	for name, b := range f.firmware {
		a.File(name, 0o644, b)
	}
	if err := writeArchive(filepath.Join(out, paths.TestRoot), a); err != nil {
		return err
	}
	b, err := os.ReadFile(f.kernel.Image)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(out, paths.TestKernel), b, 0o644)
}

func writeArchive(name string, a cpio.Archive) error {
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(name, b.Bytes(), 0o644)
}

// testPackages makes the archives of the test packages. Which versions those
// are is kept in the cache and not in the lock file: nothing of them is ever on
// a card, and a test that compares with them says which it ran.
func testPackages(ctx context.Context, opts Options, names []string, out string) error {
	c := &apt.Client{Cache: opts.Cache, Arch: architecture}
	for _, name := range names {
		if err := testPackage(ctx, c, name, filepath.Join(out, paths.TestPackage(name))); err != nil {
			return fmt.Errorf("test package %s: %w", name, err)
		}
	}
	return nil
}

// testPackage makes the archive of a package at to, unless it is there: beside it
// lies what it was made of.
func testPackage(ctx context.Context, c *apt.Client, name, to string) error {
	record, made := filepath.Join(c.Cache, "closure", name+".json"), to+".json"
	known, err := os.ReadFile(record)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if b, err := os.ReadFile(made); err == nil && bytes.Equal(b, known) {
			return nil
		}
		var closure []apt.Package
		if err := json.Unmarshal(known, &closure); err != nil {
			return fmt.Errorf("%s: %w", record, err)
		}
		if a, err := packageArchive(ctx, c, name, closure); err == nil {
			return errors.Join(writeArchive(to, a), atomicfile.Write(made, known, 0o644))
		} // the archive drops old versions: ask for the newest
	}
	closure, err := c.Closure(ctx, name)
	if err != nil {
		return err
	}
	a, err := packageArchive(ctx, c, name, closure)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(closure, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		return err
	}
	if err := writeArchive(to, a); err != nil {
		return err
	}
	return errors.Join(atomicfile.Write(made, b, 0o644), atomicfile.Write(record, b, 0o644))
}

// packageArchive takes the whole of the named package, without its manual, and
// the shared libraries of all others: nothing is configured, so that their
// programs would be of no use.
func packageArchive(ctx context.Context, c *apt.Client, name string, closure []apt.Package) (cpio.Archive, error) {
	debs, err := c.Get(ctx, closure)
	if err != nil {
		return nil, err
	}
	a := cpio.Archive{}
	for i, p := range closure {
		wanted := isLibrary
		if p.Name == name {
			wanted = isNoManual
		}
		if err := unpacked(ctx, debs[i], func(dir string) error { return addTree(a, dir, wanted) }); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return a, nil
}

// isLibrary holds for what the dynamic loader finds by itself, not for plug-ins.
func isLibrary(name string) bool {
	dir, base := path.Split(name)
	folder := path.Base(dir)
	return (folder == "lib" || strings.HasSuffix(folder, "-linux-gnu")) && (strings.HasSuffix(base, ".so") || strings.Contains(base, ".so."))
}

func isNoManual(name string) bool {
	return !strings.HasPrefix(name, "usr/share/doc/") && !strings.HasPrefix(name, "usr/share/man/") && !strings.HasPrefix(name, "usr/share/locale/")
}

// addTree adds the files and links of a folder that are wanted by name.
func addTree(a cpio.Archive, dir string, wanted func(name string) bool) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil || !wanted(filepath.ToSlash(name)) {
			return err
		}
		switch d.Type() {
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			a.Symlink(name, target)
			return err
		case 0:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			i, err := d.Info()
			if err != nil {
				return err
			}
			a.File(name, uint32(i.Mode().Perm()), b)
		}
		return nil
	})
}
