// Package module loads kernel modules: by name, by the alias of a device or of
// a kernel feature, with everything they depend on. It reads the text indexes
// that depmod writes and does what modprobe does, in the order modprobe does
// it, since an appliance has no modprobe.
package module

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// index is what depmod wrote about one folder of modules.
type index struct {
	files   map[string]file // by name
	soft    map[string]soft // by name
	aliases map[string][]alias
	builtin map[string]bool // by name
	held    map[string]bool // by name
}

type file struct {
	path string
	deps []string // names, the first to be loaded last
}

type soft struct{ pre, post []string }

type alias struct{ pattern, name string }

// maxIndex bounds what is read of an index file: those of Debian's whole
// kernel have 2 MiB.
const maxIndex = 8 << 20

// normalize returns a name as the kernel spells it: without folder and
// extension, with underscores.
func normalize(s string) string {
	s, _, _ = strings.Cut(path.Base(s), ".ko")
	return strings.ReplaceAll(s, "-", "_")
}

func readIndex(dir string) (*index, error) {
	x := &index{files: map[string]file{}, soft: map[string]soft{}, aliases: map[string][]alias{}, builtin: map[string]bool{}, held: map[string]bool{}}
	for _, f := range []struct {
		name     string
		optional bool
		line     func(string) error
	}{
		{"modules.dep", false, x.addDep},
		{"modules.alias", true, x.addAlias},
		{"modules.softdep", true, x.addSoft},
		{"modules.builtin", true, x.addBuiltin},
		{Held, true, x.addHeld},
	} {
		err := readLines(filepath.Join(dir, f.name), f.line)
		if f.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("module index: %w", err)
		}
	}
	return x, nil
}

func readLines(path string, each func(string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, maxIndex))
	s.Buffer(nil, 256<<10) // modules with many dependencies have long lines
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		if err := each(line); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// addDep reads "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz …".
func (x *index) addDep(line string) error {
	p, deps, ok := strings.Cut(line, ":")
	if !ok || !filepath.IsLocal(p) {
		return fmt.Errorf("expected a path, a colon and dependencies, got %.80q", line)
	}
	f := file{path: p}
	for _, d := range strings.Fields(deps) {
		f.deps = append(f.deps, normalize(d))
	}
	x.files[normalize(p)] = f
	return nil
}

// addAlias reads "alias pci:v00001AF4d00001000sv*sd*bc*sc*i* virtio_pci".
func (x *index) addAlias(line string) error {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "alias" {
		return fmt.Errorf("expected alias, pattern and module, got %.80q", line)
	}
	a := alias{normalizeAlias(f[1]), normalize(f[2])}
	k := bucket(a.pattern)
	x.aliases[k] = append(x.aliases[k], a)
	return nil
}

// addSoft reads "softdep ext4 pre: crc32c post: zram".
func (x *index) addSoft(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "softdep" {
		return fmt.Errorf("expected softdep, module and dependencies, got %.80q", line)
	}
	name := normalize(f[1])
	s := x.soft[name]
	var to *[]string
	for _, w := range f[2:] {
		switch {
		case w == "pre:":
			to = &s.pre
		case w == "post:":
			to = &s.post
		case to == nil:
			return fmt.Errorf("expected pre: or post: before %.80q", w)
		default:
			*to = append(*to, w)
		}
	}
	x.soft[name] = s
	return nil
}

// addBuiltin reads "kernel/fs/fat/fat.ko".
func (x *index) addBuiltin(line string) error {
	x.builtin[normalize(line)] = true
	return nil
}

// Held is the name of the index of modules that no alias loads, neither at a
// device's request nor at the kernel's: each is loaded by its name, by whoever
// knows its parameters and the right moment. halo-image writes it; it has lines
// as modprobe's configuration has, "blacklist morse".
const Held = "modules.held"

func (x *index) addHeld(line string) error {
	f := strings.Fields(line)
	if len(f) != 2 || f[0] != "blacklist" {
		return fmt.Errorf("expected blacklist and module, got %.80q", line)
	}
	x.held[normalize(f[1])] = true
	return nil
}

// bucket is the part of an alias that no pattern leaves open and that all
// matches share: the bus.
func bucket(s string) string {
	if i := strings.IndexAny(s, ":*?["); i >= 0 && s[i] == ':' {
		return s[:i]
	}
	return ""
}

// match returns the names that an alias stands for, each once.
func (x *index) match(s string) []string {
	s = normalizeAlias(s)
	var names []string
	for i, k := range []string{bucket(s), ""} {
		if i > 0 && bucket(s) == "" {
			break
		}
		for _, a := range x.aliases[k] {
			if glob(a.pattern, s) && !x.held[a.name] && !slices.Contains(names, a.name) {
				names = append(names, a.name)
			}
		}
	}
	return names
}

// normalizeAlias spells hyphens as underscores, outside of bracket
// expressions, where they are ranges.
func normalizeAlias(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b := []byte(s)
	in := false
	for i, c := range b {
		switch {
		case c == '[':
			in = true
		case c == ']':
			in = false
		case c == '-' && !in:
			b[i] = '_'
		}
	}
	return string(b)
}
