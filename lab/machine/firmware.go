package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Files on the boot partition; see ARCHITECTURE.md, "The card".
const (
	slotTXT = "slot.txt"
	kernel  = "vmlinuz"
	initrd  = "initrd.bin"
	cmdline = "cmdline.txt"
	piTree  = "bcm2837-rpi-3-b.dtb"
)

type bootFiles struct {
	slot           string // a, b, or flat
	kernel, initrd string // paths
	cmdline        string
	tree           string // path of the device tree; "": QEMU makes it
}

// firmware does what the board's own does: it finds the prefix in slot.txt and
// takes the kernel, the initramfs and the command line from there.
func (m *Machine) firmware(ctx context.Context) (b bootFiles, err error) {
	boot, err := m.cfg.Disk.OpenBoot(m.cfg.Dir)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, boot.Close()) }()
	prefix, err := readSlot(boot.Read(ctx, slotTXT))
	if err != nil {
		return b, err
	}
	b.slot = "flat"
	if prefix != "" {
		b.slot = strings.TrimPrefix(prefix, "slot-")
	}
	dir := filepath.Join(m.cfg.Dir, "boot")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return b, err
	}
	names := []string{kernel, initrd}
	if m.cfg.Pi {
		names = append(names, piTree)
		b.tree = filepath.Join(dir, piTree)
	}
	for _, name := range names {
		if err := boot.CopyOut(ctx, path.Join(prefix, name), dir); err != nil {
			return b, err
		}
	}
	b.kernel, b.initrd = filepath.Join(dir, kernel), filepath.Join(dir, initrd)
	text, err := boot.Read(ctx, path.Join(prefix, cmdline))
	b.cmdline = strings.TrimSpace(string(text))
	return b, err
}

// readSlot returns the folder that slot.txt names, empty on a flat card, which
// has no slot.txt.
func readSlot(text []byte, err error) (string, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	switch s := string(text); s {
	case "os_prefix=slot-a/\n", "os_prefix=slot-b/\n":
		return strings.TrimSuffix(strings.TrimPrefix(s, "os_prefix="), "/\n"), nil
	default:
		return "", fmt.Errorf("%s: expected os_prefix=slot-a/ or os_prefix=slot-b/, got %.40q", slotTXT, s)
	}
}
