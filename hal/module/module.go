package module

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Kernel takes modules: the running kernel, or a test's record.
type Kernel interface {
	// Insert loads the module file with parameters. A module that is loaded
	// already is no error.
	Insert(path, params string) error
	// Loaded returns the names of the modules that are loaded.
	Loaded() (map[string]bool, error)
}

// Loader loads modules from one folder. Its methods may be called from any
// goroutine.
type Loader struct {
	dir    string
	index  *index
	kernel Kernel
	params map[string]string // by module

	mu     sync.Mutex // guards what follows, and keeps the order of a load
	loaded map[string]bool
	count  int
}

// ErrUnknown is wrapped where no module has a name or alias.
var ErrUnknown = errors.New("no such module")

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
	return &Loader{dir: dir, index: x, kernel: k, params: params, loaded: loaded}, nil
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
	return l.load(name, nil)
}

// load does the work of Load; path holds the names above this one, so that
// soft dependencies may form a circle.
func (l *Loader) load(name string, path []string) error {
	n := normalize(name)
	if l.loaded[n] || l.index.builtin[n] || slices.Contains(path, n) {
		return nil
	}
	if f, ok := l.index.files[n]; ok {
		return l.insert(n, f, append(path, n))
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

func (l *Loader) insert(n string, f file, path []string) error {
	soft := l.index.soft[n]
	l.loadSoft(soft.pre, path)
	for _, d := range slices.Backward(f.deps) {
		if err := l.load(d, path); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	if err := l.kernel.Insert(filepath.Join(l.dir, f.path), l.params[n]); err != nil {
		return fmt.Errorf("load %s: %w", n, err)
	}
	l.loaded[n] = true
	l.count++
	l.loadSoft(soft.post, path)
	return nil
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
		if err := l.Load(a); !errors.Is(err, ErrUnknown) {
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

// parseLoaded reads /proc/modules. Modules on their way in or out do not count:
// loading them again waits for the kernel to be done with them.
func parseLoaded(b []byte) map[string]bool {
	m := map[string]bool{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) >= 5 && f[4] == "Live" {
			m[f[0]] = true
		}
	}
	return m
}
