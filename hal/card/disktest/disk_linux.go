// Package disktest makes disks for tests that count what is written to them.
package disktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a file system as that of a card's data (image/initramfs makes it, image/boot/perm
// mounts it), on a disk of its own that counts what is written: a loop device, whose file is in RAM.
type Disk struct {
	Dir    string // where it is mounted, for this process and those that it starts
	image  string
	device string
}

const ram = "/dev/shm"

// New makes one, which takes root.
func New(t testing.TB) *Disk {
	t.Helper()
	image := create(t)
	if err := os.Truncate(image, 1<<30); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "1", "-I", "256", "-J", "size=4", "-O", "metadata_csum,64bit,extent,flex_bg,huge_file,dir_nlink,extra_isize", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image)
	return mount(t, image)
}

// Cut returns a disk as this one would be found had its power been cut now: it has what the
// file system gave to this one to write, and nothing that it keeps in RAM as yet. What a disk
// itself has not on its medium before it is told to is there; package powercut of
// gateway/store leaves that out too.
func (d *Disk) Cut(t testing.TB) *Disk {
	t.Helper()
	image := create(t)
	tool(t, "cp", "--sparse=always", d.image, image)
	return mount(t, image)
}

// create makes an empty file that goes with the test.
func create(t testing.TB) (image string) {
	t.Helper()
	f, err := os.CreateTemp(ram, "halo-card-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func mount(t testing.TB, image string) *Disk {
	t.Helper()
	d := &Disk{Dir: t.TempDir(), image: image, device: tool(t, "losetup", "--find", "--show", image)}
	t.Cleanup(func() { tool(t, "losetup", "--detach", d.device) })
	if err := unix.Mount(d.device, d.Dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, "errors=remount-ro,commit=30"); err != nil {
		t.Fatalf("a file system of its own is needed, and root to make it: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.Dir, 0); err != nil {
			t.Error(err)
		}
	})
	return d
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Sync has all that is dirty written, where the file system keeps it too.
func (d *Disk) Sync(t testing.TB) {
	t.Helper()
	f, err := os.Open(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// Written is how many octets the disk was given to write, the file system's journal among
// them.
func (d *Disk) Written(t testing.TB) int64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.device), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	const sectorsWritten, sector = 6, 512
	n, err := strconv.ParseInt(strings.Fields(string(data))[sectorsWritten], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * sector
}
