package module

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Kernel takes modules and gives them up: the running kernel, or a test's
// record.
type Kernel interface {
	// Insert loads the module file with parameters. The error wraps fs.ErrExist
	// for a module that is loaded already.
	Insert(path, params string) error
	// Remove unloads a module. The error wraps unix.EWOULDBLOCK or unix.EBUSY for
	// one that is in use.
	Remove(name string) error
	// Loaded returns the modules that are loaded, by name.
	Loaded() (map[string]State, error)
	// Users names what works by a module now, as far as that can be known:
	// network interfaces that are up.
	Users(name string) []string
}

// State is what the kernel tells of a loaded module.
type State struct {
	Refs    int      // uses of any kind, Holders among them
	Holders []string // modules that need it
}

// Loader loads modules from one folder. Its methods may be called from any
// goroutine.
type Loader struct {
	dir    string
	index  *index
	kernel Kernel
	params map[string]string // by module

	mu     sync.Mutex // guards what follows, and keeps the order of a load
	loaded map[string]State
	count  int
	// removing is what the kernel was told to remove and has not; who waited has given up.
	removing map[string]chan error
}

// Errors that are wrapped.
var (
	// ErrUnknown: no module has a name or alias.
	ErrUnknown = errors.New("no such module")
	// ErrLoaded: a module that was to be loaded with parameters is there already.
	ErrLoaded = errors.New("it is loaded already")
)

// NewLoader reads the indexes of dir (/lib/modules/<release>). params are
// parameters by module name, as Params reads them from a command line.
func NewLoader(dir string, k Kernel, params map[string]string) (*Loader, error) {
	x, err := readIndex(dir)
	if err != nil {
		return nil, err
	}
	loaded, err := k.Loaded()
	if err != nil {
		return nil, fmt.Errorf("loaded modules: %w", err)
	}
	return &Loader{dir: dir, index: x, kernel: k, params: params, loaded: loaded, removing: map[string]chan error{}}, nil
}

// Count returns how many modules this loader has loaded.
func (l *Loader) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Load loads the module of that name, or all that have it as an alias. What is
// built into the kernel or loaded already is no error.
func (l *Loader) Load(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.look(); err != nil {
		return err
	}
	return l.load(name, nil)
}

// LoadWith loads the module of that name, no alias, with parameters of its own
// (words key=value), and before it what it depends on, with what the loader was
// made with. The error wraps ErrLoaded for a module that is there already: a
// parameter counts only for a load.
func (l *Loader) LoadWith(name, params string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.look(); err != nil {
		return err
	}
	n := normalize(name)
	if _, ok := l.loaded[n]; ok {
		return fmt.Errorf("load %s with %q: %w: unload it first", n, params, ErrLoaded)
	}
	f, ok := l.index.files[n]
	switch {
	case l.index.builtin[n]:
		return fmt.Errorf("load %s with %q: it is part of this kernel: its parameters belong on the kernel command line", n, params)
	case !ok:
		return fmt.Errorf("load %s: %w in %s", n, ErrUnknown, l.dir)
	}
	return l.insert(n, f, params, []string{n})
}

// File returns the path of the module of that name, empty for one that is part
// of the kernel. The error wraps ErrUnknown, or says why the file is not there.
func (l *Loader) File(name string) (string, error) {
	n := normalize(name)
	f, ok := l.index.files[n]
	if !ok && l.index.builtin[n] {
		return "", nil
	}
	if !ok {
		return "", fmt.Errorf("module %s: %w in %s: an image has those that gokr-packer.json names, and what halo-image modules has built", n, ErrUnknown, l.dir)
	}
	path := filepath.Join(l.dir, f.path)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("module %s: %w", n, err)
	}
	return path, nil
}

// look asks the kernel what is loaded: other processes load and unload too.
func (l *Loader) look() error {
	loaded, err := l.kernel.Loaded()
	if err != nil {
		return fmt.Errorf("loaded modules: %w", err)
	}
	l.loaded = loaded
	return nil
}

// load does the work of Load; path holds the names above this one, so that
// soft dependencies may form a circle.
func (l *Loader) load(name string, path []string) error {
	n := normalize(name)
	if _, ok := l.loaded[n]; ok || l.index.builtin[n] || slices.Contains(path, n) {
		return nil
	}
	if f, ok := l.index.files[n]; ok {
		return l.insert(n, f, l.params[n], append(path, n))
	}
	names := l.index.match(name)
	if len(names) == 0 {
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	var errs []error
	for _, m := range names {
		errs = append(errs, l.load(m, append(path, n)))
	}
	return errors.Join(errs...)
}

func (l *Loader) insert(n string, f file, params string, path []string) error {
	soft := l.index.soft[n]
	l.loadSoft(soft.pre, path)
	for _, d := range slices.Backward(f.deps) {
		if err := l.load(d, path); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	file := filepath.Join(l.dir, f.path)
	switch err := l.kernel.Insert(file, params); {
	case errors.Is(err, fs.ErrExist) && params == l.params[n]: // another process was faster
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("load %s with %q: %w: another process loaded it meanwhile: unload it first", n, params, ErrLoaded)
	case err != nil:
		return fmt.Errorf("load %s with %q from %s: %w%s", n, params, file, err, hint(err))
	}
	l.loaded[n] = State{}
	l.count++
	l.loadSoft(soft.post, path)
	return nil
}

// hint says what the kernel means by an error of a load, where that is known.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return ": it was built for another kernel, or is no module: build it against this one's headers (halo-image modules)"
	case errors.Is(err, unix.EKEYREJECTED):
		return ": its signature is not one of this kernel: it was changed after it was built, or is another kernel's"
	case errors.Is(err, unix.ENOENT):
		return ": the file is missing, or a symbol that it needs: the kernel log names it"
	case errors.Is(err, unix.EINVAL):
		return ": a parameter that it does not take, perhaps: the kernel log names it"
	case errors.Is(err, unix.ENODEV):
		return ": it found no device of its own"
	}
	return ""
}

// loadSoft loads soft dependencies, which are wishes: what is missing or fails
// is for the module itself to complain about.
func (l *Loader) loadSoft(names, path []string) {
	for _, n := range names {
		_ = l.load(n, path)
	}
}

// Coldplug loads what the devices found so far ask for, by their modalias files
// below sys (/sys). Devices without a module here are skipped. An error is that
// of modules that would not load.
func (l *Loader) Coldplug(sys string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.look(); err != nil {
		return err
	}
	// By bus, which is a tenth of what a walk through all devices reads.
	files, err := filepath.Glob(filepath.Join(sys, "bus/*/devices/*/modalias"))
	if err != nil {
		return err
	}
	files = append(files, filepath.Join(sys, "devices/system/cpu/modalias")) // for ciphers by instruction
	seen := map[string]bool{}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // devices come and go meanwhile
			seen[string(bytes.TrimSpace(b))] = true
		}
	}
	var errs []error
	for a := range seen {
		if err := l.load(a, nil); !errors.Is(err, ErrUnknown) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Params reads module parameters from a kernel command line: words such as
// "mac80211_hwsim.radios=2", by module. The kernel itself takes those of
// built-in modules only.
func Params(cmdline string) map[string]string {
	m := map[string]string{}
	for _, w := range strings.Fields(cmdline) {
		key, _, _ := strings.Cut(w, "=")
		name, param, ok := strings.Cut(key, ".")
		if !ok || name == "" || param == "" {
			continue
		}
		n := normalize(name)
		m[n] = strings.TrimSpace(m[n] + " " + w[len(name)+1:])
	}
	return m
}

// parseLoaded reads /proc/modules: "name size refs holders, state address".
// Modules on their way in or out do not count: loading them again waits for the
// kernel to be done with them.
func parseLoaded(b []byte) map[string]State {
	m := map[string]State{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 5 || f[4] != "Live" {
			continue
		}
		var state State
		state.Refs, _ = strconv.Atoi(f[2]) // "-" where the kernel cannot unload
		for h := range strings.SplitSeq(f[3], ",") {
			if h != "" && h != "-" && h[0] != '[' { // [permanent] is said there too
				state.Holders = append(state.Holders, h)
			}
		}
		m[f[0]] = state
	}
	return m
}
