package telemetry

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// card is a file system as that of a card's data (image/initramfs makes it), on a disk of
// its own that counts what is written: a loop device, whose file is in RAM.
type card struct {
	dir    string
	device string
}

const ram = "/dev/shm"

func newCard(b *testing.B) *card {
	b.Helper()
	f, err := os.CreateTemp(ram, "halo-card-")
	if err != nil {
		b.Fatal(err)
	}
	image := f.Name()
	b.Cleanup(func() { os.Remove(image) })
	if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil {
		b.Fatal(err)
	}
	tool(b, "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "1", "-I", "256", "-J", "size=4", "-O", "metadata_csum,64bit,extent,flex_bg,huge_file,dir_nlink,extra_isize", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image)
	c := &card{dir: b.TempDir(), device: tool(b, "losetup", "--find", "--show", image)}
	b.Cleanup(func() { tool(b, "losetup", "--detach", c.device) })
	if err := unix.Mount(c.device, c.dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		b.Fatalf("a file system of its own is needed, and root to make it: %v", err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(c.dir, 0); err != nil {
			b.Error(err)
		}
	})
	return c
}

func tool(b *testing.B, name string, args ...string) string {
	b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v: %s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

// sync has all that is dirty written, where the file system keeps it too.
func (c *card) sync(b *testing.B) {
	b.Helper()
	d, err := os.Open(c.dir)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		b.Fatal(err)
	}
}

// written is how many octets the disk was given to write, the file system's journal among
// them.
func (c *card) written(b *testing.B) int64 {
	b.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(c.device), "stat"))
	if err != nil {
		b.Fatal(err)
	}
	const sectorsWritten, sector = 6, 512
	n, err := strconv.ParseInt(strings.Fields(string(data))[sectorsWritten], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n * sector
}
