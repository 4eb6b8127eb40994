// Package apt fetches Debian packages for the image as apt on the build host
// would install them: from the sources configured there, with apt's own check
// of signatures and hashes, but in directories of its own, for the board's
// architecture and without root. What was fetched is kept by hash and written
// to a lock file, so that a later build takes the same bytes without asking.
// The archive drops old versions; then the newest one served is taken, with a
// warning, and the lock follows.
package apt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"halo.internal/image/flock"
	"halo.internal/image/tool"
)

// Package is one binary package of the archive.
type Package struct {
	Name    string `json:"package"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"` // hex, of the .deb file
}

// Client fetches packages.
type Client struct {
	Cache string       // directory for lists and packages
	Arch  string       // e.g. arm64
	Lock  *Lock        // versions to prefer; updated
	Warn  func(string) // told when a version differs from the lock
	// Components to ask the configured sources of main for too, e.g.
	// non-free-firmware: from the same archives, by the same keys.
	Components []string

	updated bool // lists are fetched at most once per run
}

// Fetch returns the path of the .deb locked under key, or, when the archive no
// longer has it, of the newest package whose whole name matches. prefix is a
// literal beginning of the names.
func (c *Client) Fetch(ctx context.Context, key, prefix string, match *regexp.Regexp) (string, Package, error) {
	return c.fetch(ctx, key, prefix, match, func(string) bool { return true })
}

// FetchVersion returns the path of the .deb of that name which is locked under key, if it
// is of a wanted version; else the newest of those, or when the archive has none, the
// newest of all.
func (c *Client) FetchVersion(ctx context.Context, key, name string, wanted func(version string) bool) (string, Package, error) {
	return c.fetch(ctx, key, name, regexp.MustCompile(regexp.QuoteMeta(name)), wanted)
}

func (c *Client) fetch(ctx context.Context, key, prefix string, match *regexp.Regexp, wanted func(version string) bool) (string, Package, error) {
	locked, isLocked := c.Lock.Get(key)
	if !wanted(locked.Version) {
		locked, isLocked = Package{}, false
	}
	if isLocked {
		if path := c.deb(locked.SHA256); sum(path) == locked.SHA256 {
			return path, locked, nil
		}
	}
	if err := c.update(ctx); err != nil {
		return "", Package{}, err
	}
	served, err := c.served(ctx, prefix, match)
	if err != nil {
		return "", Package{}, err
	}
	if of := slices.DeleteFunc(slices.Clone(served), func(p Package) bool { return !wanted(p.Version) }); len(of) > 0 {
		served = of
	}
	chosen, err := c.choose(ctx, served, locked)
	if err != nil {
		return "", Package{}, fmt.Errorf("%s: expected a package matching %s from the configured apt sources for %s: %w", key, match, c.Arch, err)
	}
	path := c.deb(chosen.SHA256)
	if err := c.download(ctx, chosen); err != nil {
		return "", Package{}, err
	}
	if isLocked && chosen != locked {
		c.Warn(fmt.Sprintf("%s: %s %s of the lock is no longer served; taking %s %s and updating the lock", key, locked.Name, locked.Version, chosen.Name, chosen.Version))
	}
	c.Lock.Set(key, chosen)
	return path, chosen, nil
}

// Get returns the paths of the .deb files of just these packages.
func (c *Client) Get(ctx context.Context, packages []Package) ([]string, error) {
	var all []string
	var missing []Package
	for _, p := range packages {
		all = append(all, c.deb(p.SHA256))
		if sum(c.deb(p.SHA256)) != p.SHA256 {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return all, nil
	}
	return all, c.download(ctx, missing...)
}

// Closure returns the newest package of that name and all that it depends on,
// as apt would install them on a machine that has nothing yet.
func (c *Client) Closure(ctx context.Context, name string) ([]Package, error) {
	if err := c.update(ctx); err != nil {
		return nil, err
	}
	out, err := c.apt(ctx, "", "apt-get", "-qq", "--no-install-recommends", "--simulate", "install", name)
	if err != nil {
		return nil, err
	}
	chosen := parseSimulated(out)
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%s: expected apt-get to name what it would install, got %.80q", name, out)
	}
	if out, err = c.apt(ctx, "", "apt-cache", append([]string{"show"}, chosen...)...); err != nil {
		return nil, err
	}
	shown, err := parseShow(out)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(shown, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(shown, func(a, b Package) bool { return a.Name == b.Name }), nil // two suites may have it
}

// parseSimulated reads lines such as "Inst libc6 (2.36-9 Debian:12/stable
// [arm64])" and returns package=version.
func parseSimulated(out []byte) []string {
	var all []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Inst" {
			continue
		}
		if version, ok := strings.CutPrefix(f[2], "("); ok {
			all = append(all, f[1]+"="+version)
		}
	}
	return all
}

func (c *Client) deb(sha256 string) string { return filepath.Join(c.Cache, "deb", sha256+".deb") }

// apt runs apt-get or apt-cache on private state. Third-party sources of the
// host stay in effect; those without packages for Arch add nothing.
func (c *Client) apt(ctx context.Context, dir, name string, args ...string) (out []byte, err error) {
	// Of its own for each set of sources: apt forgets the lists of those that it is not told
	// of, and another client of this cache may have fetched them.
	state := filepath.Join(c.Cache, "apt", strings.Join(append([]string{c.Arch}, c.Components...), "+"))
	// While lists are fetched there are none to read: builds with one cache take turns.
	release, err := flock.Wait(ctx, state)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(state, "status") // nothing is installed
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	lists, parts, err := c.sources(ctx, state)
	if err != nil {
		return nil, err
	}
	options := []string{
		"-oDir::Etc::sourcelist=" + lists,
		"-oDir::Etc::sourceparts=" + parts,
		"-oDir::State::Lists=" + filepath.Join(state, "lists"),
		"-oDir::State::status=" + status,
		"-oDir::Cache=" + state,
		"-oAPT::Architecture=" + c.Arch,
		"-oAPT::Architectures=" + c.Arch,
		"-oAcquire::Languages=none",
		"-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-oAcquire::IndexTargets::deb::CNF::DefaultEnabled=false",
		"-oAcquire::AllowInsecureRepositories=false",
		"-oAPT::Get::AllowUnauthenticated=false",
		"-oAPT::Sandbox::User=", // the directories are this user's
	}
	return tool.Command{Name: name, Args: append(options, args...), Dir: dir, Env: []string{"LC_ALL=C"}}.Run(ctx)
}

func (c *Client) update(ctx context.Context) error {
	if c.updated {
		return nil
	}
	if _, err := c.apt(ctx, "", "apt-get", "-qq", "update"); err != nil {
		return fmt.Errorf("fetch package lists: %w", err)
	}
	c.updated = true
	return nil
}

func (c *Client) served(ctx context.Context, prefix string, match *regexp.Regexp) ([]Package, error) {
	out, err := c.apt(ctx, "", "apt-cache", "pkgnames", prefix)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range strings.FieldsSeq(string(out)) {
		if match.FindString(name) == name {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	out, err = c.apt(ctx, "", "apt-cache", append([]string{"show"}, names...)...)
	if err != nil {
		return nil, err
	}
	return parseShow(out)
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*$`)
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~:-]*$`)
	sha256Form  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// parseShow reads the stanzas that apt-cache show prints.
func parseShow(out []byte) ([]Package, error) {
	var packages []Package
	var p Package
	flush := func() error {
		defer func() { p = Package{} }()
		if p == (Package{}) {
			return nil
		}
		if !nameForm.MatchString(p.Name) || !versionForm.MatchString(p.Version) || !sha256Form.MatchString(p.SHA256) {
			return fmt.Errorf("apt-cache: expected a stanza with Package, Version and SHA256, got %q %q %q", p.Name, p.Version, p.SHA256)
		}
		packages = append(packages, p)
		return nil
	}
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ": ")
		switch key {
		case "":
			if err := flush(); err != nil {
				return nil, err
			}
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "SHA256":
			p.SHA256 = value
		}
	}
	return packages, errors.Join(s.Err(), flush())
}

// choose returns the locked package when it is served, else the newest.
func (c *Client) choose(ctx context.Context, served []Package, locked Package) (Package, error) {
	var newest Package
	for _, p := range served {
		if p == locked {
			return p, nil
		}
		if newest == (Package{}) {
			newest = p
			continue
		}
		// Exit status 1 says no; dpkg alone knows the order of Debian versions.
		if _, err := tool.Run(ctx, "dpkg", "--compare-versions", p.Version, "gt", newest.Version); err == nil {
			newest = p
		}
	}
	if newest == (Package{}) {
		return Package{}, errors.New("none is served (apt-get update may have failed, or the series has ended)")
	}
	return newest, nil
}

// download gets packages by one call of apt-get.
func (c *Client) download(ctx context.Context, packages ...Package) error {
	dir := filepath.Join(c.Cache, "deb")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	args := []string{"-qq", "download"}
	for _, p := range packages {
		args = append(args, p.Name+"="+p.Version)
	}
	if _, err := c.apt(ctx, tmp, "apt-get", args...); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	got := map[string]string{} // path by sum
	for _, f := range files {
		got[sum(f)] = f
	}
	for _, p := range packages {
		f, ok := got[p.SHA256]
		if !ok {
			return fmt.Errorf("download %s %s: expected SHA-256 %s, got %s", p.Name, p.Version, p.SHA256, strings.Join(slices.Sorted(maps.Keys(got)), ", "))
		}
		if err := os.Rename(f, c.deb(p.SHA256)); err != nil {
			return err
		}
	}
	return nil
}

// sum returns a file's SHA-256 in hex, or "" when it can't be read.
func sum(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Unpack extracts a .deb into dir.
func Unpack(ctx context.Context, deb, dir string) error {
	_, err := tool.Run(ctx, "dpkg-deb", "-x", deb, dir)
	return err
}
