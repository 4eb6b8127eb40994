package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
