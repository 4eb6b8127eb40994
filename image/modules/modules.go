// Package modules builds kernel modules from outside the kernel package against
// the image's kernel: Morse's driver, or a patched cfg80211. Headers, build
// programs and compiler come from the archive by apt and are used from a private
// folder, so that the host needs no more than make, and the same source gives the
// same octets anywhere.
package modules

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"halo.internal/image/apt"
	"halo.internal/image/kernel"
	"halo.internal/image/tool"
	"halo.internal/model/atomicfile"
)

// Options name a build.
type Options struct {
	Source string // folder with a Kbuild or Makefile
	Out    string // folder for the modules and their record
	Cache  string
	Vars   []string // for make, e.g. CONFIG_MORSE_SDIO=y
	Kernel kernel.Tree
}

// Record is what stands beside the modules.
type Record struct {
	Release  string            `json:"release"` // of the kernel
	Source   string            `json:"source"`  // hex SHA-256 of the source folder
	Vars     []string          `json:"vars"`
	Packages []apt.Package     `json:"packages"` // headers, build programs, compiler
	Modules  map[string]string `json:"modules"`  // hex SHA-256 by file
}

// Files beside the modules.
const (
	RecordFile  = "build.json"
	SymbolsFile = "Module.symvers" // what the modules export, for others to be checked against
)

// recipe goes up with each change of how modules are built.
const recipe = 1

// varForm keeps make from taking a variable for something else.
var varForm = regexp.MustCompile(`^[A-Z][A-Z0-9_]*=[A-Za-z0-9_./:+-]*$`)

// Build builds all modules of a source folder. What was built before of the same
// source with the same tools is taken from the cache. The folder Out is filled
// anew.
func Build(ctx context.Context, o Options) (Record, error) {
	vars := slices.Sorted(slices.Values(o.Vars))
	for _, v := range vars {
		if !varForm.MatchString(v) {
			return Record{}, fmt.Errorf("modules: expected a variable for make such as CONFIG_MORSE_SDIO=y, got %q", v)
		}
	}
	source, err := sum(o.Source)
	if err != nil {
		return Record{}, err
	}
	known, err := ReadRecord(o.Out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Record{}, err
	}
	if known.Release != o.Kernel.Release {
		known.Packages = nil
	}
	t, err := fetch(ctx, o.Cache, o.Kernel.Release, known.Packages)
	if err != nil {
		return Record{}, err
	}
	r := Record{Release: o.Kernel.Release, Source: source, Vars: vars, Packages: t.packages, Modules: map[string]string{}}
	h := sha256.New()
	fmt.Fprintln(h, recipe, r.Release, r.Source, t.digest(), vars)
	built := filepath.Join(o.Cache, "modules", hex.EncodeToString(h.Sum(nil)))
	if _, err := os.Stat(built); err != nil {
		if err := t.make(ctx, o.Source, vars, built); err != nil {
			return Record{}, err
		}
	}
	files, err := os.ReadDir(built)
	if err != nil {
		return Record{}, err
	}
	if err := clean(o.Out); err != nil {
		return Record{}, err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(built, f.Name()))
		if err != nil {
			return Record{}, err
		}
		if strings.HasSuffix(f.Name(), ".ko") {
			digest := sha256.Sum256(b)
			r.Modules[f.Name()] = hex.EncodeToString(digest[:])
		}
		if err := atomicfile.Write(filepath.Join(o.Out, f.Name()), b, 0o644); err != nil {
			return Record{}, err
		}
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return Record{}, err
	}
	if err := atomicfile.Write(filepath.Join(o.Out, RecordFile), append(b, '\n'), 0o644); err != nil {
		return Record{}, err
	}
	return r, kernel.CheckOutside(ctx, o.Kernel, o.Out)
}

// ReadRecord reads the record of a folder of modules.
func ReadRecord(dir string) (r Record, err error) {
	b, err := os.ReadFile(filepath.Join(dir, RecordFile))
	if err != nil {
		return Record{}, fmt.Errorf("built modules: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("built modules: %s: %w", filepath.Join(dir, RecordFile), err)
	}
	return r, nil
}

// clean makes Out, or empties it of what a build has left. A folder with anything
// else in it is not one of ours.
func clean(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if n := e.Name(); n != RecordFile && n != SymbolsFile && !strings.HasSuffix(n, ".ko") {
			return fmt.Errorf("modules: expected %s to be empty or the result of a build, found %s in it", dir, n)
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// skip names what is no part of a module's source: results of builds, and the
// history of changes.
func skip(d fs.DirEntry) bool {
	n := d.Name()
	if d.IsDir() {
		return n == ".git" || n == ".tmp_versions"
	}
	switch filepath.Ext(n) {
	case ".o", ".ko", ".cmd", ".mod":
		return true
	}
	return n == "Module.symvers" || n == "modules.order" || strings.HasSuffix(n, ".mod.c")
}

// walk calls each for every file of a source folder, in order. Links are refused:
// what they lead to would not be part of the sum.
func walk(source string, each func(rel string, b []byte) error) error {
	return filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("modules: source: %w", err)
		}
		if path != source && skip(d) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("modules: source: expected files and folders only, got %s", path)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		return each(filepath.ToSlash(rel), b)
	})
}

// sum returns the hex SHA-256 of a source folder.
func sum(source string) (string, error) {
	h := sha256.New()
	kbuild := false
	err := walk(source, func(rel string, b []byte) error {
		kbuild = kbuild || rel == "Kbuild" || rel == "Makefile"
		fmt.Fprintf(h, "%s\n%d\n", rel, len(b))
		h.Write(b)
		return nil
	})
	if err == nil && !kbuild {
		err = fmt.Errorf("modules: expected a Kbuild or Makefile in %s, which says obj-m := name.o", source)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// make builds a source folder, copied to where it leaves no mess, into built,
// which appears by a rename.
func (t *toolchain) make(ctx context.Context, source string, vars []string, built string) error {
	dir, err := os.MkdirTemp("", "halo-modules-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = walk(source, func(rel string, b []byte) error {
		to := filepath.Join(dir, filepath.FromSlash(rel))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		return err
	}
	env, err := t.environment()
	if err != nil {
		return err
	}
	args := append([]string{
		"-C", t.headers, "M=" + dir, "ARCH=" + target, "CROSS_COMPILE=aarch64-linux-gnu-",
		// Debugging information would be stripped, but has been in the build id, with
		// the folders in it; and some of it wants a program (pahole) of its own.
		"CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES=",
		// Where it was built is in no module.
		"KCFLAGS=-ffile-prefix-map=" + dir + "/=module/ -ffile-prefix-map=" + t.dir + "/=",
	}, vars...)
	if _, err := (tool.Command{Name: "make", Args: append(args, "modules"), Dir: dir, Env: env}).Run(ctx); err != nil {
		return fmt.Errorf("modules: %s against %s: %w", source, t.release, err)
	}
	return t.collect(ctx, dir, env, built)
}

// collect gathers the modules and what they export, without debugging
// information.
func (t *toolchain) collect(ctx context.Context, dir string, env []string, built string) error {
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(built), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var found []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (filepath.Ext(path) == ".ko" || d.Name() == SymbolsFile && filepath.Dir(path) == dir) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	modules := 0
	for _, path := range found {
		to := filepath.Join(tmp, filepath.Base(path))
		if _, err := os.Stat(to); err == nil {
			return fmt.Errorf("modules: two are called %s", filepath.Base(path))
		}
		if filepath.Ext(path) == ".ko" {
			modules++
			strip := tool.Command{Name: filepath.Join(t.dir, "usr/bin/aarch64-linux-gnu-strip"), Args: []string{"--strip-debug", "-o", to, path}, Env: env}
			if _, err := strip.Run(ctx); err != nil {
				return err
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// Symbols are named with the file of their module, by where it was built.
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(string(b), dir+"/", "")), 0o644); err != nil {
			return err
		}
	}
	if modules == 0 {
		return errors.New("modules: none was built: which are, depends on the Kbuild (obj-m) and on variables (--var CONFIG_X=m)")
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tmp, built); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
