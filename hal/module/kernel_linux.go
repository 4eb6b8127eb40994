package module

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
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
	err = unix.FinitModule(int(f.Fd()), params, flags)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Loaded reads /proc/modules.
func (Running) Loaded() (map[string]bool, error) {
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
