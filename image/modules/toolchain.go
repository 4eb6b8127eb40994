package modules

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"halo.internal/image/apt"
	"halo.internal/image/tool"
)

// target is Debian's name of the boards' processor.
const target = "arm64"

// compiler returns the package that has aarch64-linux-gnu-gcc for a host: where the host
// is of the boards' kind, it is the host's own.
func compiler(host string) string {
	if host == target {
		return "gcc"
	}
	return "gcc-aarch64-linux-gnu"
}

// toolchain is a kernel's headers and a compiler in one folder, as their packages
// lay them out.
type toolchain struct {
	dir      string
	headers  string // folder in which make is called
	release  string
	packages []apt.Package
}

// kbuildName is the package of the kernel's build programs: that of 6.12.9+deb12-arm64
// is linux-kbuild-6.12.9+deb12.
func kbuildName(release string) (version string, err error) {
	version, flavour, ok := cutLast(release, "-")
	if !ok || flavour == "" {
		return "", fmt.Errorf("kernel %s: expected a release of Debian's such as 6.12.9+deb12-arm64: modules for a vendor's kernel are built by its vendor's means", release)
	}
	return version, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// fetch gets the packages for a kernel's release, those of known if they are
// still to be had, and unpacks them once below cache.
func fetch(ctx context.Context, cache, release string, known []apt.Package) (*toolchain, error) {
	version, err := kbuildName(release)
	if err != nil {
		return nil, err
	}
	arch, err := tool.Run(ctx, "dpkg", "--print-architecture")
	if err != nil {
		return nil, err
	}
	lock, err := apt.ReadLock(filepath.Join(cache, "modules.lock.json"))
	if err != nil {
		return nil, err
	}
	for _, p := range known {
		lock.Set(p.Name, p)
	}
	warn := func(string) {} // what was taken instead is in the record beside the modules
	board := &apt.Client{Cache: cache, Arch: target, Lock: lock, Warn: warn}
	host := &apt.Client{Cache: cache, Arch: strings.TrimSpace(string(arch)), Lock: lock, Warn: warn}
	t := &toolchain{release: release}
	var debs []string
	one := func(c *apt.Client, name string) error {
		deb, p, err := c.Fetch(ctx, name, name, regexp.MustCompile(regexp.QuoteMeta(name)))
		if err != nil {
			return fmt.Errorf("%w: modules can only be built against a kernel whose headers the archive still has: delete \"kernel\" from gokr-packer.lock.json to have the newest of the series", err)
		}
		debs, t.packages = append(debs, deb), append(t.packages, p)
		return nil
	}
	if err := errors.Join(
		one(board, "linux-headers-"+release),
		one(board, "linux-headers-"+version+"-common"),
		one(host, "linux-kbuild-"+version),
	); err != nil {
		return nil, err
	}
	programs, err := compilerPackages(ctx, host, known)
	if err != nil {
		return nil, err
	}
	more, err := host.Get(ctx, programs)
	if err != nil {
		return nil, err
	}
	debs, t.packages = append(debs, more...), append(t.packages, programs...)
	if err := lock.Save(); err != nil {
		return nil, err
	}
	return t, t.unpack(ctx, cache, debs)
}

// compilerPackages are the compiler's: known ones, or those that apt would
// install today. What every host has itself is not among them, since programs of
// one Debian release run with that.
func compilerPackages(ctx context.Context, c *apt.Client, known []apt.Package) ([]apt.Package, error) {
	var programs []apt.Package
	for _, p := range known {
		if !strings.HasPrefix(p.Name, "linux-") {
			programs = append(programs, p)
		}
	}
	if slices.ContainsFunc(programs, func(p apt.Package) bool { return p.Name == compiler(c.Arch) }) {
		if _, err := c.Get(ctx, programs); err == nil {
			return programs, nil
		} // the archive drops old versions
	}
	all, err := c.Closure(ctx, compiler(c.Arch))
	if err != nil {
		return nil, err
	}
	ofHost := []string{"libc6", "libgcc-s1", "libstdc++6"}
	return slices.DeleteFunc(all, func(p apt.Package) bool {
		// Libraries for programs of boards, of which a kernel uses none.
		return slices.Contains(ofHost, p.Name) || strings.HasSuffix(p.Name, "-arm64-cross") && !strings.HasPrefix(p.Name, "libgcc-")
	}), nil
}

// digest names what the toolchain is made of.
func (t *toolchain) digest() string {
	h := sha256.New()
	for _, p := range t.packages {
		fmt.Fprintln(h, p.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// unpack fills <cache>/toolchain/<digest>, which appears by a rename.
func (t *toolchain) unpack(ctx context.Context, cache string, debs []string) error {
	t.dir = filepath.Join(cache, "toolchain", t.digest())
	t.headers = filepath.Join(t.dir, "usr/src/linux-headers-"+t.release)
	if _, err := os.Stat(t.dir); err != nil {
		if err := os.MkdirAll(filepath.Dir(t.dir), 0o755); err != nil {
			return err
		}
		tmp, err := os.MkdirTemp(filepath.Dir(t.dir), "unpack-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		for _, deb := range debs {
			if err := apt.Unpack(ctx, deb, tmp); err != nil {
				return err
			}
		}
		if err := os.Rename(tmp, t.dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Debian's file names the other headers by where they would be installed.
	version, err := kbuildName(t.release)
	if err != nil {
		return err
	}
	makefile := "include " + filepath.Join(t.dir, "usr/src/linux-headers-"+version+"-common/Makefile") + "\n"
	path := filepath.Join(t.headers, "Makefile")
	if b, err := os.ReadFile(path); err == nil && string(b) == makefile {
		return nil
	}
	return os.WriteFile(path, []byte(makefile), 0o644)
}

// environment lets the compiler run from where it was unpacked.
func (t *toolchain) environment() ([]string, error) {
	libraries, err := filepath.Glob(filepath.Join(t.dir, "usr/lib/*-linux-gnu"))
	if err != nil {
		return nil, err
	}
	more, err := filepath.Glob(filepath.Join(t.dir, "lib/*-linux-gnu"))
	if err != nil {
		return nil, err
	}
	return []string{
		"PATH=" + filepath.Join(t.dir, "usr/bin") + ":" + os.Getenv("PATH"),
		"LD_LIBRARY_PATH=" + strings.Join(append(libraries, more...), ":"),
		"LC_ALL=C", "TZ=UTC",
	}, nil
}
