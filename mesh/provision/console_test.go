package provision

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestClaimCodeIsOnEveryConsole(t *testing.T) {
	const code = "7K3M-Q0ZT-4WXPB"
	for _, tc := range []struct {
		name   string
		active string // "-": no such file
		there  []string
		shown  []string // empty: an error
	}{
		{"screen and serial port", "tty1 ttyS1\n", []string{"tty1", "ttyS1", "console", "tty2"}, []string{"tty1", "ttyS1"}},
		{"serial port alone", "ttyAMA0\n", []string{"ttyAMA0", "console"}, []string{"ttyAMA0"}},
		{"no screen", "tty1 ttyS1\n", []string{"ttyS1"}, []string{"ttyS1"}},
		{"a kernel that does not list them", "-", []string{"console"}, []string{"console"}},
		{"none listed", "\n", []string{"console"}, []string{"console"}},
		{"none there", "tty1 ttyS1\n", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			active := filepath.Join(dir, "active")
			if tc.active != "-" {
				write(t, active, tc.active)
			}
			for _, n := range tc.there {
				write(t, filepath.Join(dir, n), "")
			}
			n := Notice{File: filepath.Join(dir, "claim.txt"), Boot: &fat{}, Console: func() (io.WriteCloser, error) { return Consoles(active, dir) }}
			err := n.Show("ridge", code)
			if (err != nil) != (len(tc.shown) == 0) {
				t.Errorf("got %v", err)
			}
			var shown []string
			for _, n := range tc.there {
				b, err := os.ReadFile(filepath.Join(dir, n))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(b), code) {
					shown = append(shown, n)
				}
			}
			if strings.Join(shown, " ") != strings.Join(tc.shown, " ") {
				t.Errorf("shown on %v, want %v", shown, tc.shown)
			}
			if b, err := os.ReadFile(n.File); err != nil || !strings.Contains(string(b), code) {
				t.Errorf("the notice does not depend on consoles: got %q, %v", b, err)
			}
		})
	}
}

// A console that takes nothing any more holds up the others for a moment only.
func TestStuckConsole(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "active"), "ttyS1 tty1")
	write(t, filepath.Join(dir, "tty1"), "")
	stuck := filepath.Join(dir, "ttyS1")
	if err := unix.Mkfifo(stuck, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(stuck, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	c, err := Consoles(filepath.Join(dir, "active"), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	much := bytes.Repeat([]byte("x"), 1<<20) // more than a pipe holds
	if _, err := c.Write(much); err != nil {
		t.Errorf("the screen took it: got %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "tty1")); err != nil || !bytes.Equal(b, much) {
		t.Errorf("screen: got %d octets, %v", len(b), err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
