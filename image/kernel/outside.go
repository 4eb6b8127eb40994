package kernel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// outsideDir is where modules from outside are in lib/modules/<release>.
const outsideDir = "updates"

// readOutside reads the modules of a folder (*.ko) by name.
func readOutside(dir string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("modules from outside: expected *.ko in %s, found none: halo-image modules makes them", dir)
	}
	all := map[string][]byte{}
	for _, p := range paths {
		if all[Name(p)], err = os.ReadFile(p); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// CheckOutside returns an error that names every module of a folder that was
// built for another kernel: its vermagic is not that of the kernel's own modules.
func CheckOutside(ctx context.Context, t Tree, dir string) error {
	outside, err := readOutside(dir)
	if err != nil {
		return err
	}
	want, err := t.vermagic(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(outside)) {
		info, err := Info(outside[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.ko of %s: %w", name, dir, err))
			continue
		}
		if got := strings.Join(info["vermagic"], ""); got != want {
			errs = append(errs, fmt.Errorf("%s.ko of %s was built for another kernel: expected vermagic %q, got %q: build it anew with halo-image modules", name, dir, want, got))
		}
		if got := strings.Join(info["name"], ""); got != name {
			errs = append(errs, fmt.Errorf("%s.ko of %s calls itself %q", name, dir, got))
		}
	}
	return errors.Join(errs...)
}

// vermagic is what the kernel's own modules carry.
func (t Tree) vermagic(ctx context.Context) (string, error) {
	x, err := t.Index()
	if err != nil {
		return "", err
	}
	names := slices.Sorted(maps.Keys(x.modules))
	if len(names) == 0 {
		return "", errors.New("kernel: expected modules, found none")
	}
	b, err := x.content(ctx, x.modules[names[0]].path)
	if err != nil {
		return "", err
	}
	info, err := Info(b)
	if err != nil {
		return "", fmt.Errorf("module %s: %w", names[0], err)
	}
	return strings.Join(info["vermagic"], ""), nil
}

// WithOutside returns the kernel with the modules of a folder beside its own, or
// in the place of those of the same name. It is made once below cache.
func WithOutside(ctx context.Context, cache string, t Tree, dir string) (Tree, error) {
	if err := CheckOutside(ctx, t, dir); err != nil {
		return Tree{}, err
	}
	outside, err := readOutside(dir)
	if err != nil {
		return Tree{}, err
	}
	own, err := t.Index()
	if err != nil {
		return Tree{}, err
	}
	names := slices.Sorted(maps.Keys(outside))
	h := sha256.New()
	fmt.Fprintln(h, t.Digest)
	for _, n := range names {
		fmt.Fprintln(h, n, len(outside[n]))
		h.Write(outside[n])
	}
	made, err := unpackOnce(ctx, cache, hex.EncodeToString(h.Sum(nil)), func(to string) error {
		root := filepath.Dir(filepath.Dir(filepath.Dir(t.Modules))) // of lib/modules/<release>
		if err := os.CopyFS(to, os.DirFS(root)); err != nil {
			return err
		}
		modules := filepath.Join(to, "lib/modules", t.Release)
		for _, n := range names {
			if m, ok := own.modules[n]; ok {
				if err := errors.Join(remove(filepath.Join(modules, m.path)), remove(filepath.Join(modules, plainName(m.path)))); err != nil {
					return err
				}
			}
			path := filepath.Join(modules, outsideDir, n+".ko")
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, outside[n], 0o644)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Tree{}, fmt.Errorf("modules from outside: %w", err)
	}
	made.Outside = append(slices.Clone(t.Outside), names...)
	exports, err := readSymvers(filepath.Join(dir, "Module.symvers"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // a folder from elsewhere: the loader is the first to tell
	}
	made.exports = map[string]uint32{}
	maps.Copy(made.exports, t.exports)
	maps.Copy(made.exports, exports)
	return made, err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readSymvers reads what modules export: lines of checksum, symbol, module …
func readSymvers(path string) (map[string]uint32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	exports := map[string]uint32{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		f := strings.Split(s.Text(), "\t")
		if len(f) < 3 {
			return nil, fmt.Errorf("%s:%d: expected checksum, symbol and module, got %.80q", path, n, s.Text())
		}
		crc, err := strconv.ParseUint(f[0], 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: expected a checksum: %w", path, n, err)
		}
		exports[f[1]] = uint32(crc)
	}
	return exports, s.Err()
}

// CheckVersions returns an error that names every module of a selection that
// would not load beside the modules from outside: it uses a symbol of one of them
// as the kernel's own module had it. A patched cfg80211 takes along all that is
// built on it.
func (t Tree) CheckVersions(ctx context.Context, x *Index, paths []string) error {
	var errs []error
	for _, p := range paths {
		if slices.Contains(t.Outside, Name(p)) || len(t.exports) == 0 {
			continue
		}
		b, err := x.content(ctx, p)
		if err != nil {
			return fmt.Errorf("module %s: %w", p, err)
		}
		uses, err := versions(b)
		if err != nil {
			return fmt.Errorf("module %s: %w", p, err)
		}
		for _, symbol := range slices.Sorted(maps.Keys(uses)) {
			if crc, ok := t.exports[symbol]; ok && crc != uses[symbol] {
				errs = append(errs, fmt.Errorf("module %s uses %s of a module from outside in an older form: build it from outside too, or take it out of the packing manifest", Name(p), symbol))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// versions returns the symbols that a module uses, with their checksums: entries
// of 64 octets in the section __versions, a checksum and a name.
func versions(b []byte) (map[string]uint32, error) {
	x, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("expected an ELF file: %w", err)
	}
	s := x.Section("__versions")
	if s == nil {
		return nil, nil // uses nothing, or was built without
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	uses := map[string]uint32{}
	for ; len(data) >= 64; data = data[64:] {
		name, _, _ := bytes.Cut(data[8:64], []byte{0})
		uses[string(name)] = binary.LittleEndian.Uint32(data)
	}
	return uses, nil
}
