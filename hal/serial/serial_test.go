package serial

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a pair of the kernel's pseudo terminals: what is written to the first one comes
// in at the port of that name.
func pty(t *testing.T) (*os.File, string) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	t.Cleanup(func() { m.Close() })
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return m, fmt.Sprintf("/dev/pts/%d", n)
}

func TestPortIsRaw(t *testing.T) {
	m, name := pty(t)
	p, err := Open(name, 9600)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	if _, err := m.Write(all[:]); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 0, 512)
	b := make([]byte, 64)
	if err := p.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for len(got) < len(all) {
		n, err := p.Read(b)
		if err != nil {
			t.Fatalf("after %d octets: %v", len(got), err)
		}
		got = append(got, b[:n]...)
	}
	if string(got) != string(all[:]) {
		t.Errorf("octets were changed on the way: %x", got)
	}
	if err := p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("expected the deadline, got %v", err)
	}
	if _, err := p.Write([]byte("hi\r\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Read(b); err != nil || string(b[:n]) != "hi\r\n" {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

func TestRates(t *testing.T) {
	_, name := pty(t)
	p, err := Open(name, 4800)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, rate := range []int{4800, 9600, 38400, 115200, 250_000, 921600} { // 250,000 has no constant of its own
		if err := p.SetRate(rate); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Rate(); err != nil || got != rate {
			t.Errorf("asked for %d, got %d, %v", rate, got, err)
		}
	}
	for _, rate := range []int{0, -1, MaxRate + 1} {
		if err := p.SetRate(rate); err == nil || !strings.Contains(err.Error(), "expected a rate of 50 to 4000000") {
			t.Errorf("%d: %v", rate, err)
		}
	}
}

func TestReadEndsWhenTheDeviceGoes(t *testing.T) {
	m, name := pty(t)
	p, err := Open(name, 9600)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := p.Read(make([]byte, 8))
		ended <- err
	}()
	m.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a read of a device that is gone succeeded")
		}
	case <-time.After(10 * time.Second):
		t.Error("a read of a device that is gone lasts")
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "ttyUSB0"), 9600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, 9600); err == nil || !strings.Contains(err.Error(), "expected a terminal") {
		t.Errorf("got %v", err)
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	if list, err := Find(root); err != nil || len(list) != 0 {
		t.Errorf("without /sys: %v, %v", list, err)
	}
	file := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(tty, device string) {
		t.Helper()
		dir := filepath.Join(root, "sys/class/tty", tty)
		for _, d := range []string{dir, filepath.Join(root, device)} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Join(root, device), filepath.Join(dir, "device")); err != nil {
			t.Fatal(err)
		}
	}
	usb := "sys/devices/platform/usb/usb1/1-1/1-1.2"
	file(usb+"/idVendor", "1546")
	file(usb+"/idProduct", "01a8")
	file(usb+"/product", "u-blox 8 \x1b[2J- GNSS")
	link("ttyACM0", usb+"/1-1.2:1.0")
	link("ttyUSB3", usb+"/1-1.2:1.1/ttyUSB3")
	link("ttyAMA0", "sys/devices/platform/soc/fe201000.serial")
	link("ttyS0", "sys/devices/platform/serial8250")
	file("sys/class/tty/ttyS0/type", "0")
	file("sys/class/tty/console/active", "tty1 ttyAMA0")
	if err := os.MkdirAll(filepath.Join(root, "sys/class/tty/tty0"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	dev := func(n string) string { return filepath.Join(root, "dev", n) }
	want := []Info{
		{Name: "ttyACM0", Path: dev("ttyACM0"), Kind: USB, Place: "1-1.2:1.0", Vendor: "1546", Product: "01a8", Model: "u-blox 8 [2J- GNSS"},
		{Name: "ttyAMA0", Path: dev("ttyAMA0"), Kind: UART, Place: "fe201000.serial", Console: true},
		{Name: "ttyUSB3", Path: dev("ttyUSB3"), Kind: USB, Place: "1-1.2:1.1", Vendor: "1546", Product: "01a8", Model: "u-blox 8 [2J- GNSS"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if _, err := Find("/"); err != nil {
		t.Errorf("of this machine: %v", err)
	}
}
