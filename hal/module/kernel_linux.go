package module

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"halo.internal/model/paths"
)

// Running is the kernel that this process runs on.
type Running struct{}

var _ Kernel = Running{}

// compressedFile makes the kernel decompress the file itself
// (MODULE_INIT_COMPRESSED_FILE).
const compressedFile = 4

// Insert loads a module file, compressed or not.
func (Running) Insert(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = compressedFile
	}
	return unix.FinitModule(int(f.Fd()), params, flags)
}

// Remove unloads a module that nothing uses. It returns when the module's own
// code has let go of its devices, which a driver that hangs never does.
func (Running) Remove(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) }

// Users names the network interfaces that are up, by the module of their driver.
func (Running) Users(name string) []string { return interfacesUp("/sys", name) }

// Loaded reads /proc/modules.
func (Running) Loaded() (map[string]State, error) {
	b, err := os.ReadFile("/proc/modules")
	return parseLoaded(b), err
}

// Release returns the running kernel's release, the name of its folder below
// /lib/modules.
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// Own returns a loader of the running kernel's modules, with the parameters that its
// command line has for them.
func Own() (*Loader, error) {
	release, err := Release()
	if err != nil {
		return nil, err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	return NewLoader(filepath.Join(paths.ModulesDir, release), Running{}, Params(string(cmdline)))
}
