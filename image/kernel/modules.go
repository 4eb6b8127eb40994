package kernel

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/hal/module"
	"halo.internal/image/tool"
	"halo.internal/model/atomicfile"
)

// Index is what depmod wrote about a tree of modules.
type Index struct {
	dir     string
	modules map[string]entry    // by name
	soft    map[string][]string // pre and post soft dependencies, by name
	lines   map[string][]string // of modules.softdep, by name
	aliases []alias
	builtin map[string]bool // names and aliases of what is part of the kernel
}

type entry struct {
	path string   // relative, e.g. kernel/fs/ext4/ext4.ko.xz
	deps []string // paths
}

type alias struct{ pattern, name string }

// Name returns a module's name from a path or a spelling with hyphens.
func Name(path string) string {
	base, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// Index reads the tree's indexes.
func (t Tree) Index() (*Index, error) {
	x := &Index{dir: t.Modules, modules: map[string]entry{}, soft: map[string][]string{}, lines: map[string][]string{}, builtin: map[string]bool{}}
	err := errors.Join(
		x.read("modules.dep", func(line string) error {
			path, deps, ok := strings.Cut(line, ":")
			if !ok {
				return errors.New("expected path: dependencies")
			}
			x.modules[Name(path)] = entry{path: path, deps: strings.Fields(deps)}
			return nil
		}),
		x.read("modules.softdep", func(line string) error {
			f := strings.Fields(line)
			if len(f) < 3 || f[0] != "softdep" {
				return errors.New("expected softdep module dependencies")
			}
			x.lines[Name(f[1])] = append(x.lines[Name(f[1])], line)
			for _, d := range f[2:] {
				if d != "pre:" && d != "post:" {
					x.soft[Name(f[1])] = append(x.soft[Name(f[1])], d)
				}
			}
			return nil
		}),
		x.read("modules.alias", func(line string) error {
			rest, ok := strings.CutPrefix(line, "alias ")
			at := strings.LastIndexByte(rest, ' ')
			if !ok || at < 0 {
				return errors.New("expected alias pattern module")
			}
			x.aliases = append(x.aliases, alias{rest[:at], Name(rest[at+1:])}) // a pattern may hold spaces
			return nil
		}),
		x.read("modules.builtin", func(line string) error {
			x.builtin[Name(line)] = true
			return nil
		}),
		x.readBuiltinAliases(),
	)
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	return x, nil
}

func (x *Index) read(name string, each func(line string) error) error {
	f, err := os.Open(filepath.Join(x.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			if err := each(line); err != nil {
				return fmt.Errorf("%s:%d: %w, got %q", name, n, err, line)
			}
		}
	}
	return s.Err()
}

// readBuiltinAliases reads the NUL-separated module.key=value strings of what
// is built in; a kernel without the file has no such aliases.
func (x *Index) readBuiltinAliases() error {
	b, err := os.ReadFile(filepath.Join(x.dir, "modules.builtin.modinfo"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for entry := range bytes.SplitSeq(b, []byte{0}) {
		if key, value, ok := strings.Cut(string(entry), "="); ok && strings.HasSuffix(key, ".alias") {
			x.builtin[value] = true
		}
	}
	return err
}

// Select returns the paths, sorted, of the named modules and all that they
// depend on, hard or soft. A name that the kernel has built in adds nothing; a
// name it does not have at all is an error, and so is such a dependency.
func (x *Index) Select(names []string) ([]string, error) {
	chosen := map[string]bool{} // by path
	var missing []error
	var add func(name, wanted string)
	addPath := func(path, wanted string) {
		if chosen[path] {
			return
		}
		chosen[path] = true
		for _, d := range x.soft[Name(path)] {
			add(d, "soft dependency of "+Name(path))
		}
		for _, d := range x.modules[Name(path)].deps {
			add(d, "dependency of "+Name(path))
		}
	}
	add = func(name, wanted string) {
		if m, ok := x.modules[Name(name)]; ok {
			addPath(m.path, wanted)
			return
		}
		if x.builtin[Name(name)] || x.builtin[name] {
			return
		}
		found := false
		for _, a := range x.aliases { // soft dependencies may name an alias, e.g. crypto-crc32c
			if m, ok := x.modules[a.name]; ok && a.pattern == name {
				addPath(m.path, wanted)
				found = true
			}
		}
		if !found {
			missing = append(missing, fmt.Errorf("module %s (%s) is not in this kernel", name, wanted))
		}
	}
	for _, n := range names {
		add(n, "named in the packing manifest")
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	paths := make([]string, 0, len(chosen))
	for p := range chosen {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths, nil
}

// For returns the names of the modules that a device with that modalias asks
// for.
func (x *Index) For(modalias string) []string {
	bus, _, _ := strings.Cut(modalias, ":")
	var names []string
	for _, a := range x.aliases {
		if strings.HasPrefix(a.pattern, bus+":") && module.Matches(a.pattern, modalias) && !slices.Contains(names, a.name) {
			names = append(names, a.name)
		}
	}
	slices.Sort(names)
	return names
}

// Files returns, for a selection, the content of lib/modules/<release>: the
// modules and the text indexes, cut to what was selected. Modules are unpacked
// here, once: on a board xz takes most of the time of loading one, and the
// archive they travel in is compressed as a whole. Modules of held are not for
// devices to load.
func (x *Index) Files(ctx context.Context, paths, held []string) (map[string][]byte, error) {
	builtin, err := os.ReadFile(filepath.Join(x.dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var dep, soft, aliases bytes.Buffer
	selected := map[string]bool{}
	for _, p := range paths {
		m := x.modules[Name(p)]
		selected[Name(p)] = true
		fmt.Fprintf(&dep, "%s:", plainName(p))
		for _, d := range m.deps {
			fmt.Fprintf(&dep, " %s", plainName(d))
		}
		fmt.Fprintln(&dep)
		for _, line := range x.lines[Name(p)] {
			fmt.Fprintln(&soft, line)
		}
	}
	for _, a := range x.aliases {
		if selected[a.name] {
			fmt.Fprintf(&aliases, "alias %s %s\n", a.pattern, a.name)
		}
	}
	files := map[string][]byte{
		"modules.dep": dep.Bytes(), "modules.softdep": soft.Bytes(),
		"modules.alias": aliases.Bytes(), "modules.builtin": builtin,
	}
	if len(held) > 0 {
		var b bytes.Buffer
		for _, n := range held {
			fmt.Fprintf(&b, "blacklist %s\n", Name(n))
		}
		files[module.Held] = b.Bytes()
	}
	for _, p := range paths {
		if files[plainName(p)], err = x.content(ctx, p); err != nil {
			return nil, fmt.Errorf("module %s: %w", p, err)
		}
	}
	return files, nil
}

// Firmware returns, by module, the files below /lib/firmware that modules of a
// selection say they load, as far as they know; * in one stands for what they
// find out from their device.
func (x *Index) Firmware(ctx context.Context, paths []string) (map[string][]string, error) {
	all := map[string][]string{}
	for _, p := range paths {
		b, err := x.content(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", p, err)
		}
		info, err := Info(b)
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", p, err)
		}
		if names := info["firmware"]; names != nil {
			all[Name(p)] = names
		}
	}
	return all, nil
}

// Info returns what a module says of itself (modinfo), by key: license,
// vermagic, depends, firmware …
func Info(b []byte) (map[string][]string, error) {
	x, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("expected an ELF file: %w", err)
	}
	s := x.Section(".modinfo")
	if s == nil {
		return nil, errors.New("expected a section .modinfo: it is no kernel module")
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	info := map[string][]string{}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if key, value, ok := strings.Cut(string(entry), "="); ok {
			info[key] = append(info[key], value)
		}
	}
	return info, nil
}

// plainName is the path of a module when it is unpacked.
func plainName(path string) string { return strings.TrimSuffix(path, ".xz") }

// content returns a module, unpacked; the result is kept beside the packed one.
func (x *Index) content(ctx context.Context, path string) ([]byte, error) {
	packed, plain := filepath.Join(x.dir, path), filepath.Join(x.dir, plainName(path))
	if b, err := os.ReadFile(plain); err == nil || packed == plain {
		return b, err
	}
	b, err := tool.Run(ctx, "xz", "--decompress", "--stdout", packed)
	if err != nil {
		return nil, err
	}
	return b, atomicfile.Write(plain, b, 0o644)
}
