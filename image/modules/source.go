package modules

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"halo.internal/image/apt"
	"halo.internal/image/tool"
)

// Driver is a module of the kernel's that its package has not, or has otherwise: it is
// built from the kernel's own source, which is fetched for that and never kept here.
type Driver struct {
	Module string   // i2c-virtio
	Files  []string // below the kernel's source; the module's own first
	Mends  []Mend   // to the first
}

// Mend is a change of a line or two. Old must be in the source, and only once: a kernel
// in which it is not needs another change, or none.
type Mend struct {
	Why      string
	Old, New string
}

// Virtual are the drivers of the buses that halo-lab's machines have, which Debian's
// kernel is built without. What is mended was found with Linux 6.1 and 6.12.
func Virtual() []Driver {
	return []Driver{
		{Module: "i2c-virtio", Files: []string{"drivers/i2c/busses/i2c-virtio.c"}, Mends: []Mend{
			{
				Why: "a chip that does not acknowledge would be a success of fewer messages, which i2c-dev hands on as one; controllers of boards return this error",
				Old: "count = virtio_i2c_complete_reqs(vq, reqs, msgs, count);",
				New: "count = virtio_i2c_complete_reqs(vq, reqs, msgs, count);\n\tif (count >= 0 && count < num)\n\t\tcount = -EREMOTEIO;",
			},
			{
				Why: "a signal would end the wait, and free memory that the device still writes to; with a limit there is no variant that signals leave alone, so that this one never ends",
				Old: "wait_for_completion_interruptible(&req->completion)",
				New: "!wait_for_completion_timeout(&req->completion, MAX_SCHEDULE_TIMEOUT)",
			},
		}},
		{Module: "gpio-virtio", Files: []string{"drivers/gpio/gpio-virtio.c"}, Mends: []Mend{
			{
				Why: "QEMU 7.2 has the queue of interrupts and does not say so",
				Old: "if (virtio_has_feature(vdev, VIRTIO_GPIO_F_IRQ))",
				New: "if (1)",
			},
		}},
	}
}

// releaseForm is how a release begins: linux-source-6.12 of a version 6.12.9-… is the
// source of 6.12.9+deb12-arm64.
var releaseForm = regexp.MustCompile(`^(\d+\.\d+)\.\d+`)

// Source returns a folder with the drivers' mended sources and a Kbuild, for Build, and
// the package that they came out of: that of the kernel's own version, or where the
// archive has none of it, the newest of the kernel's series, of which c warns. It is
// made once below the client's cache.
func Source(ctx context.Context, c *apt.Client, release string, drivers []Driver) (dir string, p apt.Package, err error) {
	form := releaseForm.FindStringSubmatch(release)
	if form == nil {
		return "", p, fmt.Errorf("kernel %s: expected a release such as 6.12.9+deb12-arm64", release)
	}
	name := "linux-source-" + form[1]
	own := func(version string) bool { return strings.HasPrefix(version, form[0]+"-") }
	// The package is of 140 MB, and all that is wanted of it may be there already.
	if locked, ok := c.Lock.Get(name); ok && own(locked.Version) {
		if dir = sourceDir(c.Cache, locked, drivers); isDir(dir) {
			return dir, locked, nil
		}
	}
	deb, p, err := c.FetchVersion(ctx, name, name, own)
	if err != nil {
		return "", p, err
	}
	if !own(p.Version) {
		c.Warn(fmt.Sprintf("kernel %s: the archive has not its source: drivers are built from %s %s", release, p.Name, p.Version))
	}
	dir = sourceDir(c.Cache, p, drivers)
	if isDir(dir) {
		return dir, p, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", p, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", p, err
	}
	defer os.RemoveAll(tmp)
	if err := extract(ctx, deb, name, drivers, tmp); err != nil {
		return "", p, fmt.Errorf("source of the kernel: %s %s: %w", p.Name, p.Version, err)
	}
	made := filepath.Join(tmp, "made")
	if err := os.Chmod(made, 0o755); err != nil {
		return "", p, err
	}
	if err := os.Rename(made, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", p, err
	}
	return dir, p, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// sourceDir is named by all that decides what is in it.
func sourceDir(cache string, p apt.Package, drivers []Driver) string {
	h := sha256.New()
	fmt.Fprintln(h, p.SHA256)
	for _, d := range drivers {
		fmt.Fprintf(h, "%q\n", d)
	}
	return filepath.Join(cache, "source", hex.EncodeToString(h.Sum(nil)))
}

// extract fills the folder made below tmp.
func extract(ctx context.Context, deb, name string, drivers []Driver, tmp string) error {
	if err := apt.Unpack(ctx, deb, tmp); err != nil {
		return err
	}
	archive := filepath.Join(tmp, "usr/src", name+".tar.xz")
	args := []string{"-C", tmp, "-xf", archive, "--occurrence=1"} // which ends behind the last one
	for _, d := range drivers {
		for _, f := range d.Files {
			args = append(args, path.Join(name, f))
		}
	}
	if _, err := tool.Run(ctx, "tar", args...); err != nil {
		return err
	}
	made := filepath.Join(tmp, "made")
	if err := os.Mkdir(made, 0o755); err != nil {
		return err
	}
	var kbuild strings.Builder
	for _, d := range drivers {
		fmt.Fprintf(&kbuild, "obj-m += %s.o\n", d.Module)
		for i, f := range d.Files {
			b, err := os.ReadFile(filepath.Join(tmp, name, filepath.FromSlash(f)))
			if err != nil {
				return err
			}
			text := string(b)
			if i == 0 {
				if text, err = d.mend(text); err != nil {
					return fmt.Errorf("%s: %w", f, err)
				}
			}
			if err := os.WriteFile(filepath.Join(made, path.Base(f)), []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(made, "Kbuild"), []byte(kbuild.String()), 0o644)
}

// mend makes the changes.
func (d Driver) mend(text string) (string, error) {
	for _, m := range d.Mends {
		if n := strings.Count(text, m.Old); n != 1 {
			return "", fmt.Errorf("expected %q once, got it %d times: look whether this kernel still has the fault (%s), and change the mend in image/modules", m.Old, n, m.Why)
		}
		text = strings.Replace(text, m.Old, m.New, 1)
	}
	return text, nil
}
