package apt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// archive stands in for apt: two programs that know some packages, whose
// content is "<name> <version>".
type archive struct{ dir string }

func newArchive(t *testing.T, packages ...Package) archive {
	t.Helper()
	a := archive{t.TempDir()}
	var names, show strings.Builder
	for _, p := range packages {
		fmt.Fprintln(&names, p.Name)
		fmt.Fprintf(&show, "Package: %s\nVersion: %s\nArchitecture: arm64\nSHA256: %s\nDescription: x\n more\n\n", p.Name, p.Version, p.SHA256)
	}
	a.file(t, "names", names.String(), 0o644)
	a.file(t, "show", show.String(), 0o644)
	a.file(t, "apt-cache", `#!/bin/sh
case " $* " in *" pkgnames "*) cat "$(dirname "$0")/names";; *) cat "$(dirname "$0")/show";; esac
`, 0o755)
	a.file(t, "apt-get", `#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
for last; do :; done
case " $* " in *" download "*) printf '%s %s' "${last%%=*}" "${last#*=}" > x.deb;; esac
`, 0o755)
	t.Setenv("PATH", a.dir+":"+os.Getenv("PATH"))
	return a
}

func (a archive) file(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func (a archive) calls(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

func pkg(name, version string) Package {
	h := sha256.Sum256([]byte(name + " " + version))
	return Package{name, version, hex.EncodeToString(h[:])}
}

var kernels = regexp.MustCompile(`linux-image-6\.12\.[0-9]+(\+[a-z0-9.]+)?-arm64`)

func client(t *testing.T, locked *Package) (*Client, *[]string) {
	t.Helper()
	l, err := ReadLock(filepath.Join(t.TempDir(), "lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if locked != nil {
		l.Set("kernel", *locked)
	}
	var warnings []string
	return &Client{Cache: t.TempDir(), Arch: "arm64", Lock: l, Warn: func(w string) { warnings = append(warnings, w) }}, &warnings
}

func TestFetch(t *testing.T) {
	old, newer := pkg("linux-image-6.12.9+deb12-arm64", "6.12.9-1"), pkg("linux-image-6.12.100+deb12-arm64", "6.12.100-1~deb12u1")
	gone := pkg("linux-image-6.12.3+deb12-arm64", "6.12.3-1")
	others := []Package{pkg("linux-image-6.12.200+deb12-cloud-arm64", "6.12.200-1"), pkg("linux-image-6.12.200+deb12-arm64-dbg", "6.12.200-1")}
	served := append([]Package{old, newer}, others...)
	for name, tc := range map[string]struct {
		locked *Package
		want   Package
		warn   bool
	}{
		"nothing locked: the newest of the series": {nil, newer, false},
		"the locked one while it is served":        {&old, old, false},
		"a newer one, with a warning, afterwards":  {&gone, newer, true},
	} {
		t.Run(name, func(t *testing.T) {
			// The stand-in shows all that it has; apt-cache shows what was asked for.
			newArchive(t, slices.DeleteFunc(slices.Clone(served), func(p Package) bool { return !kernels.MatchString(p.Name) || kernels.FindString(p.Name) != p.Name })...)
			c, warnings := client(t, tc.locked)
			path, got, err := c.Fetch(context.Background(), "kernel", "linux-image-6.12.", kernels)
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != tc.want.Name+" "+tc.want.Version {
				t.Errorf("content: got %q, %v", b, err)
			}
			if (len(*warnings) > 0) != tc.warn {
				t.Errorf("warnings: got %q", *warnings)
			}
			if locked, ok := c.Lock.Get("kernel"); !ok || locked != tc.want {
				t.Errorf("lock: got %v, want %v", locked, tc.want)
			}
		})
	}
}

// TestFetchVersion takes another than the locked one, where that is not of the version.
func TestFetchVersion(t *testing.T) {
	const name = "linux-source-6.12"
	first, second, third := pkg(name, "6.12.9-1"), pkg(name, "6.12.100-1"), pkg(name, "6.12.117-1")
	for text, tc := range map[string]struct {
		wanted string
		locked Package
		want   Package
	}{
		"as it is locked":             {"6.12.9-", first, first},
		"another is locked":           {"6.12.100-", first, second},
		"nothing is locked":           {"6.12.9-", Package{}, first},
		"none is served: the newest":  {"6.12.50-", second, third},
		"none is served, nor another": {"6.12.50-", Package{}, third},
	} {
		t.Run(text, func(t *testing.T) {
			newArchive(t, first, third, second)
			c, _ := client(t, nil)
			if tc.locked != (Package{}) {
				c.Lock.Set(name, tc.locked)
			}
			_, got, err := c.FetchVersion(context.Background(), name, name, func(v string) bool { return strings.HasPrefix(v, tc.wanted) })
			if err != nil || got != tc.want {
				t.Errorf("got %v, %v, want %v", got, err, tc.want)
			}
			if locked, _ := c.Lock.Get(name); locked != tc.want {
				t.Errorf("lock: got %v", locked)
			}
		})
	}
}

func TestSecondFetchAsksNobody(t *testing.T) {
	p := pkg("linux-image-6.12.9+deb12-arm64", "6.12.9-1")
	a := newArchive(t, p)
	c, _ := client(t, nil)
	for range 2 {
		if _, _, err := c.Fetch(context.Background(), "kernel", "linux-image-6.12.", kernels); err != nil {
			t.Fatal(err)
		}
	}
	calls := a.calls(t)
	if n := strings.Count(calls, " download "); n != 1 {
		t.Errorf("downloads: got %d, want 1", n)
	}
	for _, want := range []string{"Acquire::AllowInsecureRepositories=false", "APT::Get::AllowUnauthenticated=false", "Dir::State::Lists=" + c.Cache} {
		if !strings.Contains(calls, want) {
			t.Errorf("apt-get was called without %s:\n%s", want, calls)
		}
	}
	// What rots in the cache is fetched again.
	if err := os.WriteFile(c.deb(p.SHA256), []byte("rot"), 0o644); err != nil {
		t.Fatal(err)
	}
	path, _, err := c.Fetch(context.Background(), "kernel", "linux-image-6.12.", kernels)
	if err != nil || sum(path) != p.SHA256 {
		t.Errorf("after damage: got %s, %v", sum(path), err)
	}
}

// TestListsOfOthers stay: whoever asks for other components, or for another architecture, by
// the same cache has apt drop no list that somebody else goes on to use.
func TestListsOfOthers(t *testing.T) {
	const name = "firmware-of-radios"
	p := pkg(name, "1")
	a := newArchive(t, p)
	// An update leaves the lists of what it was asked for, and no others.
	a.file(t, "apt-get", `#!/bin/sh
for o; do last=$o; case "$o" in -oDir::State::Lists=*) lists="${o#*=}";; -oAPT::Architecture=*) arch="${o#*=}";; -oDir::Etc::sourceparts=*) parts="${o#*=}";; esac; done
case " $* " in
*" update "*) rm -f "$lists"/*_*; if grep -q non-free "$parts"/*; then touch "$lists/${arch}_non-free"; fi;;
*" download "*) printf '%s %s' "${last%%=*}" "${last#*=}" > x.deb;; esac
`, 0o755)
	a.file(t, "apt-cache", `#!/bin/sh
for o; do case "$o" in -oDir::State::Lists=*) lists="${o#*=}";; esac; done
if [ -e "$lists/arm64_non-free" ]; then case " $* " in *" pkgnames "*) echo firmware-of-radios;; *) cat "$(dirname "$0")/show";; esac; fi
`, 0o755)
	etc := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(etc, "parts"), 0o755), os.WriteFile(filepath.Join(etc, "parts/debian.sources"), []byte("Types: deb\nComponents: main\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	a.file(t, "apt-config", "#!/bin/sh\necho \"LIST='"+etc+"/sources.list'\"\necho \"PARTS='"+etc+"/parts/'\"\n", 0o755)
	c, _ := client(t, nil)
	c.Components = []string{"non-free-firmware"}
	fetch := func(c *Client, key string) error {
		_, _, err := c.Fetch(t.Context(), key, name, regexp.MustCompile(name))
		return err
	}
	if err := fetch(c, "before"); err != nil {
		t.Fatal(err)
	}
	for _, other := range []*Client{{Arch: "arm64"}, {Arch: "amd64", Components: c.Components}} {
		other.Cache, other.Lock = c.Cache, c.Lock
		if err := fetch(other, "theirs"); err == nil || !strings.Contains(err.Error(), "none is served") {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if err := fetch(c, "after"); err != nil {
		t.Error(err)
	}
}

// Two builds with one cache: while one fetches lists, there are none for the other.
func TestBuildsAtOnce(t *testing.T) {
	const name = "linux-image-6.12.9-arm64"
	a := newArchive(t, pkg(name, "1"))
	a.file(t, "apt-get", `#!/bin/sh
for o; do last=$o; case "$o" in -oDir::State::Lists=*) lists="${o#*=}";; esac; done
case " $* " in
*" update "*) rm -f "$lists/packages"; touch "$(dirname "$0")/updating"; sleep 1; touch "$lists/packages";;
*" download "*) printf '%s %s' "${last%%=*}" "${last#*=}" > x.deb;; esac
`, 0o755)
	a.file(t, "apt-cache", `#!/bin/sh
for o; do case "$o" in -oDir::State::Lists=*) lists="${o#*=}";; esac; done
if [ -e "$lists/packages" ]; then case " $* " in *" pkgnames "*) cat "$(dirname "$0")/names";; *) cat "$(dirname "$0")/show";; esac; fi
`, 0o755)
	one, _ := client(t, nil)
	other, _ := client(t, nil)
	other.Cache = one.Cache
	fetch := func(c *Client) error {
		_, _, err := c.Fetch(t.Context(), "kernel", name, kernels)
		return err
	}
	updating := filepath.Join(a.dir, "updating")
	if err := errors.Join(one.update(t.Context()), os.Remove(updating)); err != nil {
		t.Fatal(err)
	}
	var builds errgroup.Group
	builds.Go(func() error { return fetch(other) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(updating); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the other build fetches no lists")
		}
	}
	if err := errors.Join(fetch(one), builds.Wait()); err != nil {
		t.Error(err)
	}
}

func TestClosure(t *testing.T) {
	libc, program := pkg("libc6", "2.36-9"), pkg("iw", "5.19-1")
	a := newArchive(t, program, libc, libc) // two suites may have the same
	a.file(t, "apt-get", `#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
case " $* " in *" --simulate "*) printf 'Inst libc6 (2.36-9 Debian:12/stable [arm64]) []\nInst iw (5.19-1 Debian:12/stable [arm64])\nConf iw\n';;
*" download "*) printf 'iw 5.19-1' > x.deb;; esac
`, 0o755)
	c, _ := client(t, nil)
	got, err := c.Closure(context.Background(), "iw")
	if err != nil || !slices.Equal(got, []Package{program, libc}) {
		t.Fatalf("got %v, %v", got, err)
	}
	for range 2 {
		if files, err := c.Get(context.Background(), []Package{program}); err != nil || len(files) != 1 || sum(files[0]) != program.SHA256 {
			t.Errorf("get: %s, %v", files, err)
		}
	}
	if n := strings.Count(a.calls(t), " download "); n != 1 {
		t.Errorf("downloads: got %d, want 1", n)
	}
}

func TestFetchRefusals(t *testing.T) {
	c, _ := client(t, nil)
	newArchive(t)
	if _, _, err := c.Fetch(context.Background(), "kernel", "linux-image-6.12.", kernels); err == nil || !strings.Contains(err.Error(), "none is served") {
		t.Errorf("nothing served: got %v", err)
	}
	bad := pkg("linux-image-6.12.9-arm64", "6.12.9-1")
	bad.SHA256 = strings.Repeat("0", 64)
	newArchive(t, bad)
	if _, _, err := c.Fetch(context.Background(), "kernel", "linux-image-6.12.", kernels); err == nil || !strings.Contains(err.Error(), "expected SHA-256 000") {
		t.Errorf("other content than listed: got %v", err)
	}
	if _, ok := c.Lock.Get("kernel"); ok {
		t.Error("a failed download was locked")
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock.json")
	l, err := ReadLock(path)
	if err != nil {
		t.Fatal(err)
	}
	want := pkg("wireless-regdb", "2026.05.30-1~deb12u1")
	l.Set("wireless-regdb", want)
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	again, err := ReadLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := again.Get("wireless-regdb"); !ok || got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, text := range map[string]string{
		"cut short":   `{"kernel": {"package": "linux`,
		"unknown key": `{"kernel": {"package": "a", "url": "b"}}`,
		"no hash":     `{"kernel": {"package": "abc", "version": "1", "sha256": ""}}`,
		"option":      `{"kernel": {"package": "-oX=y", "version": "1", "sha256": "` + strings.Repeat("0", 64) + `"}}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLock(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
	}
}

func FuzzParseShow(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\nSHA256: " + strings.Repeat("ab", 32) + "\n\n"))
	f.Add([]byte("Package: --x\nVersion: 1\n\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseShow(b)
		for _, p := range list {
			if err == nil && (strings.HasPrefix(p.Name, "-") || len(p.SHA256) != 64) {
				t.Errorf("accepted %+v", p)
			}
		}
	})
}
