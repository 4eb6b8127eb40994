package flash

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// host makes a sysfs and a proc with one disk, sdx (8:16), that has a
// partition (8:17).
func host(t *testing.T, bus, removable, mountinfo string) (sys, proc string) {
	t.Helper()
	root := t.TempDir()
	disk := filepath.Join(root, "sys/devices", bus, "block/sdx")
	for name, text := range map[string]string{
		filepath.Join(disk, "removable"):           removable + "\n",
		filepath.Join(disk, "dev"):                 "8:16\n",
		filepath.Join(disk, "sdx1/partition"):      "1\n",
		filepath.Join(disk, "sdx1/dev"):            "8:17\n",
		filepath.Join(root, "proc/self/mountinfo"): mountinfo,
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	links := filepath.Join(root, "sys/dev/block")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	for number, to := range map[string]string{"8:16": disk, "8:17": filepath.Join(disk, "sdx1")} {
		if err := os.Symlink(to, filepath.Join(links, number)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "sys"), filepath.Join(root, "proc")
}

const (
	elsewhere = "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n"
	onCard    = elsewhere + "40 22 8:17 / /media/card rw - vfat /dev/sdx1 rw\n"
)

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		bus, removable, mountinfo, number string
		force                             bool
		want                              error
		text                              string
	}{
		"card reader":                {"pci0/ata1", "1", elsewhere, "8:16", false, nil, ""},
		"USB that says fixed":        {"pci0/usb1/1-1", "0", elsewhere, "8:16", false, nil, ""},
		"the host's own disk":        {"pci0/ata1", "0", elsewhere, "8:16", false, ErrNotRemovable, "--force"},
		"the host's own disk forced": {"pci0/ata1", "0", elsewhere, "8:16", true, nil, ""},
		"mounted":                    {"pci0/usb1/1-1", "1", onCard, "8:16", false, ErrMounted, "/media/card"},
		"mounted forced":             {"pci0/usb1/1-1", "1", onCard, "8:16", true, nil, ""},
		"a partition, even forced":   {"pci0/usb1/1-1", "1", elsewhere, "8:17", true, nil, "expected a whole disk, got a partition of sdx"},
	} {
		t.Run(name, func(t *testing.T) {
			sys, proc := host(t, tc.bus, tc.removable, tc.mountinfo)
			err := check(sys, proc, "/dev/sdx", tc.number, tc.force)
			if tc.want == nil && tc.text == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.text) || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v and %q", err, tc.want, tc.text)
			}
		})
	}
}

func TestCheckSeesHolders(t *testing.T) {
	sys, proc := host(t, "pci0/usb1/1-1", "1", elsewhere)
	if err := os.MkdirAll(filepath.Join(sys, "devices/pci0/usb1/1-1/block/sdx/sdx1/holders/dm-0"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := check(sys, proc, "/dev/sdx", "8:16", false); !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), "dm-0") {
		t.Errorf("got %v, want it to name dm-0", err)
	}
}

func TestOpenRefusesWhatIsNoDisk(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/dev/null", "/dev/nothing-there"} {
		if _, err := Open(path, true); err == nil {
			t.Errorf("%s: got no error", path)
		}
	}
}
