package modules

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/image/apt"
)

// TestMend changes what is there once, and nothing else.
func TestMend(t *testing.T) {
	d := Driver{Module: "x", Mends: []Mend{{Why: "it leaks", Old: "free(a)", New: "free(b)"}, {Why: "it hangs", Old: "wait()", New: "wait(1)"}}}
	if got, err := d.mend("wait(); free(a); go();"); err != nil || got != "wait(1); free(b); go();" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, text := range map[string]string{"not there": "wait();", "twice": "free(a); free(a); wait();"} {
		if _, err := d.mend(text); err == nil || !strings.Contains(err.Error(), `expected "free(a)" once`) || !strings.Contains(err.Error(), "it leaks") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryMendSaysWhy(t *testing.T) {
	for _, d := range Virtual() {
		if len(d.Files) == 0 || !strings.HasSuffix(d.Files[0], "/"+d.Module+".c") {
			t.Errorf("%s: files %q", d.Module, d.Files)
		}
		for _, m := range d.Mends {
			if m.Why == "" || m.Old == "" || m.Old == m.New || strings.Contains(strings.TrimSuffix(m.New, m.Old), m.Old+m.Old) {
				t.Errorf("%s: %+v", d.Module, m)
			}
		}
	}
}

// TestSourceThatIsThere needs no archive.
func TestSourceThatIsThere(t *testing.T) {
	cache := t.TempDir()
	p := apt.Package{Name: "linux-source-6.12", Version: "6.12.9-1", SHA256: strings.Repeat("1", 64)}
	b, err := json.Marshal(map[string]apt.Package{p.Name: p})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "lock.json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	lock, err := apt.ReadLock(path)
	if err != nil {
		t.Fatal(err)
	}
	c := &apt.Client{Cache: cache, Arch: target, Lock: lock}
	want := sourceDir(cache, p, Virtual())
	if err := os.MkdirAll(want, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, got, err := Source(context.Background(), c, "6.12.9+deb12-arm64", Virtual()); err != nil || dir != want || got != p {
		t.Errorf("got %s, %+v, %v", dir, got, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel() // so that nothing is fetched
	if dir, _, err := Source(ended, c, "6.12.90+deb12-arm64", Virtual()); err == nil {
		t.Errorf("the source of 6.12.9 is taken for 6.12.90: %s", dir)
	}
	other := Virtual()
	other[0].Mends = other[0].Mends[:1]
	if sourceDir(cache, p, other) == want {
		t.Error("other mends are in the same folder")
	}
	if _, _, err := Source(context.Background(), c, "vendor", Virtual()); err == nil || !strings.Contains(err.Error(), "expected a release") {
		t.Errorf("a vendor's kernel: %v", err)
	}
}
