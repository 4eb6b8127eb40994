package machine_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"halo.internal/lab/cardtest"
	"halo.internal/lab/disk"
	"halo.internal/lab/machine"
	"halo.internal/lab/played"
)

func TestMain(m *testing.M) { played.Main(m) }

// limit is far beyond what any of this takes.
const limit = time.Minute

// powerLost counts the machines that were switched on.
var powerLost atomic.Int64

// fake is a machine with a played QEMU; script is its kernel command line.
func fake(t *testing.T, files map[string]string) (*machine.Machine, <-chan struct{}) {
	t.Helper()
	played.Install(t)
	image := cardtest.Image(t, files)
	d, err := disk.Create(image, image+".overlay", 1)
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 100)
	m, err := machine.New(machine.Config{
		Name: "m", Dir: filepath.Join(t.TempDir(), "m"), Disk: d, MemoryMB: 256, Log: slog.New(slog.DiscardHandler),
		NICs: []machine.NIC{
			{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Forwards: []machine.Forward{{Host: 20080, Guest: 80}}},
			{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Plug: func(c net.Conn) error { return c.Close() }},
		},
		Air: func(c net.Conn) error { return c.Close() },
		Parts: []machine.Part{
			{Device: "vhost-user-i2c-pci", Shared: true, Plug: func(c net.Conn) error { return c.Close() }},
			{Device: "usb-serial,bus=usb.0", Bus: "qemu-xhci,id=usb", Plug: func(c net.Conn) error { return c.Close() }},
		},
		PowerLost: func() { powerLost.Add(1) },
		Notify:    func() { changed <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.PowerCut(); err != nil && !errors.Is(err, machine.ErrOff) {
			t.Error(err)
		}
		d.Close()
	})
	return m, changed
}

func flat(script string) map[string]string {
	return map[string]string{"vmlinuz": "kernel", "initrd.bin": "initrd", "cmdline.txt": script + "\n"}
}

func until(t *testing.T, m *machine.Machine, changed <-chan struct{}, ok func(machine.Status) bool) machine.Status {
	t.Helper()
	for {
		if s := m.Status(); ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-time.After(limit):
			t.Fatalf("not within %s; status %+v", limit, m.Status())
		}
	}
}

func TestEndsAndRestarts(t *testing.T) {
	for _, tc := range []struct {
		script string
		state  machine.State
		starts int
		end    string
		detail string
	}{
		{"off", machine.Off, 1, "guest-shutdown", ""},
		{"reset bite reset off", machine.Off, 4, "guest-shutdown", ""},
		{"bite crash", machine.Failed, 2, "", "flux-capacitor"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			m, changed := fake(t, flat(tc.script))
			if err := m.PowerOn(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := until(t, m, changed, func(s machine.Status) bool { return s.State != machine.Running })
			// A gateway shows its claim code on the console.
			for name, want := range map[string]os.FileMode{m.Console(): 0o600, filepath.Dir(m.Console()): 0o700} {
				if i, err := os.Stat(name); err != nil || i.Mode().Perm() != want {
					t.Errorf("%s: mode %v, %v; want %v", name, i.Mode().Perm(), err, want)
				}
			}
			if s.State != tc.state || s.Starts != tc.starts || s.LastEnd != tc.end || !strings.Contains(s.Detail, tc.detail) || s.PID != 0 {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestFirmware(t *testing.T) {
	slots := map[string]string{}
	for _, s := range []string{"a", "b"} {
		for name, text := range flat("stay from=" + s) {
			slots["slot-"+s+"/"+name] = text
		}
	}
	with := func(slotTXT string) map[string]string {
		files := map[string]string{"slot.txt": slotTXT}
		for name, text := range slots {
			files[name] = text
		}
		return files
	}
	for _, tc := range []struct {
		name, slot, console, detail string
		files                       map[string]string
	}{
		{"flat", "flat", "-append stay ", "", flat("stay")},
		{"slot a", "a", "from=a", "", with("os_prefix=slot-a/\n")},
		{"slot b", "b", "from=b", "", with("os_prefix=slot-b/\n")},
		{"half written", "", "", `expected os_prefix=slot-a/ or os_prefix=slot-b/, got "os_prefix=sl"`, with("os_prefix=sl")},
		{"elsewhere", "", "", "slot.txt: expected", with("os_prefix=../x/\n")},
		{"no kernel", "", "", "slot-a/vmlinuz", map[string]string{"slot.txt": "os_prefix=slot-a/\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, changed := fake(t, tc.files)
			if err := m.PowerOn(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := until(t, m, changed, func(s machine.Status) bool { return s.PID != 0 || s.State == machine.Failed })
			if s.Slot != tc.slot || !strings.Contains(s.Detail, tc.detail) || (s.State == machine.Failed) != (tc.detail != "") {
				t.Fatalf("got %+v", s)
			}
			if tc.console == "" {
				return
			}
			awaitConsole(t, m, tc.console)
		})
	}
}

// awaitConsole returns when the console holds a text.
func awaitConsole(t *testing.T, m *machine.Machine, text string) string {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(m.Console()) // there is none before the first start
		if strings.Contains(string(b), text) {
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the console never said %q, but:\n%s", text, b)
		}
	}
}

func TestEverythingIsShutIn(t *testing.T) {
	m, _ := fake(t, flat("stay"))
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	args := awaitConsole(t, m, "\n")
	for _, want := range []string{
		"-netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:20080-:80 ",
		"-device virtio-net-pci,netdev=net1,mac=02:00:00:00:00:02,romfile=",
		"-no-reboot", "base=1970-01-01T00:00:00", "-action watchdog=reset", "-nodefaults",
		"-device virtserialport,chardev=air,name=halo.air",
		"-device vhost-user-i2c-pci,chardev=part0 ", "-device qemu-xhci,id=usb -device usb-serial,chardev=part1,bus=usb.0",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is not in %s", want, args)
		}
	}
}

// TestMemoryForLastWords keeps a word where the machine keeps its kernel's last:
// a reset leaves it there, a loss of power does not.
func TestMemoryForLastWords(t *testing.T) {
	m, _ := fake(t, flat("stay stay stay"))
	file := filepath.Join(filepath.Dir(m.Console()), "last-words")
	there := func() bool {
		_, err := os.Stat(file)
		return err == nil
	}
	if err := os.WriteFile(file, []byte("of a lab before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	args := awaitConsole(t, m, "\n")
	if there() {
		t.Error("what was left there is still there")
	}
	for _, want := range []string{
		"-m 257 ", "memory-backend-memfd,share=on,id=ram,size=256M ", "size=1M,share=on,mem-path=" + file + " ",
		"mem=256M ramoops.mem_address=0x50000000 ",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is not in %s", want, args)
		}
	}
	if err := os.WriteFile(file, []byte("panic"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !there() {
		t.Error("a reset lost the last words")
	}
	before := powerLost.Load()
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitConsole(t, m, "\n")
	if there() {
		t.Error("they outlived a loss of power")
	}
	if n := powerLost.Load() - before; n != 1 {
		t.Errorf("what is wired to the machine was told %d times", n)
	}
}

func TestSwitches(t *testing.T) {
	m, changed := fake(t, flat("stay stay stay"))
	ctx := t.Context()
	if err := errors.Join(m.PowerCut(), m.Reset(ctx), m.Pause(ctx)); !errors.Is(err, machine.ErrOff) {
		t.Errorf("of a machine that is off: got %v", err)
	}
	if err := m.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(ctx); !errors.Is(err, machine.ErrOn) {
		t.Errorf("switched on twice: got %v", err)
	}
	running := func(s machine.Status) bool { return s.PID != 0 }
	first := until(t, m, changed, running)
	p, err := machine.Lookup(first.PID)
	if err != nil {
		t.Fatal(err)
	}
	awaitConsole(t, m, "\n")
	if err := m.Pause(ctx); err != nil || m.Status().State != machine.Paused {
		t.Errorf("pause: %v, %+v", err, m.Status())
	}
	if err := m.Resume(ctx); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("a refusal by QEMU: got %v", err)
	}
	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.Starts != 2 || s.LastEnd != "host-qmp-system-reset" || p.Alive() {
		t.Errorf("after a reset: %+v; the first QEMU is alive: %v", s, p.Alive())
	}
	awaitConsole(t, m, "\n")
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.State != machine.Off || s.LastEnd != "power-cut" || s.PID != 0 {
		t.Errorf("after a power cut: %+v", s)
	}
	for _, name := range []string{"console.1.log", "boot/vmlinuz"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(m.Console()), name)); err != nil {
			t.Error(err)
		}
	}
	life, end := context.WithCancel(ctx)
	if err := m.PowerOn(life); err != nil {
		t.Fatal(err)
	}
	until(t, m, changed, running)
	end()
	until(t, m, changed, func(s machine.Status) bool { return s.State == machine.Off })
}

func TestOrphansAreFoundAndOthersSpared(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "qemu.pid")
	if found, err := machine.KillOrphan(dir); found || err != nil {
		t.Errorf("in an empty folder: %v, %v", found, err)
	}
	sleep := exec.Command("sleep", "600")
	sleep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := machine.Lookup(sleep.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	note := func(p machine.Process) {
		b, err := json.Marshal(p)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// The number is that of another process by now: it must be left alone.
	note(machine.Process{PID: p.PID, Started: "1"})
	if found, err := machine.KillOrphan(dir); found || err != nil || !p.Alive() {
		t.Errorf("another process of that number: found %v, %v, alive %v", found, err, p.Alive())
	}
	note(p)
	if found, err := machine.KillOrphan(dir); !found || err != nil {
		t.Errorf("an orphan: found %v, %v", found, err)
	}
	if err := sleep.Wait(); err == nil {
		t.Error("the orphan ended by itself, not by us")
	}
	if err := os.WriteFile(path, []byte("-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := machine.KillOrphan(dir); err == nil {
		t.Error("a file that names no process was taken")
	}
}
