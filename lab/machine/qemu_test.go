//go:build lab

package machine_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/disk"
	"halo.internal/lab/machine"
)

// bootLimit is far beyond what any of this takes, even where others use the
// processor too.
const bootLimit = 4 * time.Minute

func image(t *testing.T) string {
	dir := os.Getenv("HALO_IMAGES")
	if dir == "" {
		dir = "../../out"
	}
	return filepath.Join(dir, "halo-node-qemu-virt.img")
}

// await returns when ok holds, which it looks at after each change of the
// machine and a few times a second, as its console grows.
func await(t *testing.T, m *machine.Machine, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bootLimit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			console, _ := os.ReadFile(m.Console())
			t.Fatalf("%s: not within %s; status %+v; console:\n%s", what, bootLimit, m.Status(), console[max(0, len(console)-4000):])
		}
	}
}

func says(m *machine.Machine, text string) func() bool {
	return func() bool {
		console, _ := os.ReadFile(m.Console()) // there is none before the first start
		return strings.Contains(string(console), text)
	}
}

func TestARealMachine(t *testing.T) {
	d, err := disk.Create(image(t), filepath.Join(t.TempDir(), "card"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plugged := make(chan net.Conn, 10)
	m, err := machine.New(machine.Config{
		Name: "node", Dir: t.TempDir(), Disk: d, MemoryMB: 256, Log: slog.New(slog.DiscardHandler),
		NICs: []machine.NIC{
			{MAC: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}},
			{MAC: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}, Plug: func(c net.Conn) error { plugged <- c; return nil }},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PowerCut(); !errors.Is(err, machine.ErrOff) {
		t.Errorf("power cut of a machine that is off: got %v", err)
	}
	ctx, end := context.WithCancel(t.Context())
	if err := m.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(ctx); !errors.Is(err, machine.ErrOn) {
		t.Errorf("switched on twice: got %v", err)
	}
	const sign = "Linux version"
	await(t, m, "first start", says(m, sign))
	if s := m.Status(); s.State != machine.Running || s.Slot != "a" || s.Starts != 1 || s.CPU == 0 {
		t.Errorf("after the start: %+v", s)
	}
	(<-plugged).Close()

	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, m, "start after a reset", says(m, sign))
	if s := m.Status(); s.Starts != 2 || s.LastEnd != "host-qmp-system-reset" {
		t.Errorf("after a reset: %+v", s)
	}
	(<-plugged).Close()
	if _, err := os.Stat(filepath.Join(filepath.Dir(m.Console()), "console.1.log")); err != nil {
		t.Errorf("the console of the start before is gone: %v", err)
	}

	if err := m.Pause(ctx); err != nil || m.Status().State != machine.Paused {
		t.Errorf("pause: %v, %+v", err, m.Status())
	}
	if err := m.Resume(ctx); err != nil || m.Status().State != machine.Running {
		t.Errorf("resume: %v, %+v", err, m.Status())
	}
	p, err := machine.Lookup(m.Status().PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.State != machine.Off || s.LastEnd != "power-cut" || p.Alive() {
		t.Errorf("after a power cut: %+v, alive %v", s, p.Alive())
	}

	if err := m.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, m, "start after a power cut", says(m, sign))
	end() // as when the lab ends
	await(t, m, "end with the lab", func() bool { return m.Status().State == machine.Off })
}
