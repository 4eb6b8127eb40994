package pwm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// chip is a class directory with one chip, whose channel 1 has been given out.
func chip(t *testing.T) (sys, channel string) {
	t.Helper()
	sys = t.TempDir()
	device := filepath.Join(sys, "devices/fe20c800.pwm")
	dir := filepath.Join(device, "pwm/pwmchip3")
	channel = filepath.Join(dir, "pwm1")
	class := filepath.Join(sys, "class/pwm")
	for _, d := range []string{channel, class} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{filepath.Join(class, "pwmchip3"): dir, filepath.Join(dir, "device"): device} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{"period": "0\n", "duty_cycle": "0\n", "enable": "0\n"} {
		if err := os.WriteFile(filepath.Join(channel, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return sys, channel
}

func TestPulses(t *testing.T) {
	sys, dir := chip(t)
	c, err := Open(sys, "fe20c800.pwm", 1, 25000)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(0.25); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"period": "40000", "duty_cycle": "10000", "enable": "1"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %s", file, got, err, want)
		}
	}
	if err := c.Set(1.5); err == nil {
		t.Error("more than all the time is taken")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(filepath.Join(filepath.Dir(dir), "unexport")); string(got) != "1" {
		t.Errorf("given back: got %q", got)
	}
}

func TestRefusals(t *testing.T) {
	sys, _ := chip(t)
	if _, err := Open(sys, "1000.pwm", 0, 50); err == nil || !strings.Contains(err.Error(), "expected one of fe20c800.pwm") {
		t.Errorf("no such chip: got %v", err)
	}
	if _, err := Open(t.TempDir(), "1000.pwm", 0, 50); err == nil || !strings.Contains(err.Error(), "the kernel has none") {
		t.Errorf("no chip: got %v", err)
	}
	if _, err := Open(sys, "fe20c800.pwm", 1, 0); err == nil {
		t.Error("no frequency is taken")
	}
}
