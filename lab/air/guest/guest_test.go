package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"halo.internal/lab/air/link"
)

func TestThePortIsFoundByItsName(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	for port, name := range map[string]string{"vport0p1": "console\n", "vport1p1": link.Port + "\n"} {
		if err := os.MkdirAll(filepath.Join(class, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, port, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dev, port), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := open(class, dev, link.Port)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if want := filepath.Join(dev, "vport1p1"); f.Name() != want {
		t.Errorf("got %s, want %s", f.Name(), want)
	}
	if _, err := open(class, dev, "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a port that is not there: got %v", err)
	}
}

// put writes files into a folder that is made.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInterfacesOfARadio(t *testing.T) {
	sys := t.TempDir()
	put(t, sys, map[string]string{
		"class/net/eth0/ifindex": "2\n", "class/net/mesh0/ifindex": "5\n", "class/net/mesh1/ifindex": "7\n",
		"class/net/mesh0/phy80211/name": "radio0\n", "class/net/mesh1/phy80211/name": "radio1\n",
	})
	if got, err := interfaces(sys, "radio1"); err != nil || len(got) != 1 || !got[7] {
		t.Errorf("got %v, %v, want 7 alone", got, err)
	}
	if _, err := interfaces(sys, "radio2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a radio without an interface: got %v", err)
	}
}

func TestProcessesAreFoundByTheirName(t *testing.T) {
	proc := t.TempDir()
	put(t, proc, map[string]string{
		"1/comm": "halo-mesh\n", "77/comm": "halo-mesh\n", "78/comm": "halo-agent\n", "self/comm": "halo-mesh\n",
		strconv.Itoa(os.Getpid()) + "/comm": "halo-mesh\n",
	})
	if got, err := processes(proc, "halo-mesh"); err != nil || !slices.Equal(got, []int{77}) {
		t.Errorf("got %v, %v, want 77: neither the first process nor this one", got, err)
	}
	if _, err := processes(proc, "halo"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such process: got %v", err)
	}
}

func TestAMachineWithoutPortsIsInNoAir(t *testing.T) {
	sys := t.TempDir()
	if err := findPorts(sys); !errors.Is(err, ErrNoAir) {
		t.Errorf("without a device: got %v", err)
	}
	for device, kind := range map[string]string{"virtio0": "0x0002\n", "virtio1": "0x0003\n"} {
		dir := filepath.Join(sys, "bus/virtio/devices", device)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "device"), []byte(kind), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := findPorts(sys); err != nil {
		t.Errorf("with one: got %v", err)
	}
}
