package apt

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExtend(t *testing.T) {
	in := `# deb http://archive.example/debian bookworm main
deb [signed-by=/k.gpg] http://archive.example/debian bookworm main contrib
deb http://archive.example/debian bookworm main non-free-firmware
deb-src http://archive.example/debian bookworm main
deb http://tools.example/apt stable tools

Types: deb
Components: main
Signed-By: /k.gpg
`
	want := `# deb http://archive.example/debian bookworm main
deb [signed-by=/k.gpg] http://archive.example/debian bookworm main contrib non-free-firmware
deb http://archive.example/debian bookworm main non-free-firmware
deb-src http://archive.example/debian bookworm main
deb http://tools.example/apt stable tools

Types: deb
Components: main non-free-firmware
Signed-By: /k.gpg
`
	if got := string(extend([]byte(in), []string{"non-free-firmware"})); got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestSources has apt ask copies of the host's sources.
func TestSources(t *testing.T) {
	a := newArchive(t)
	etc := t.TempDir()
	for name, text := range map[string]string{
		"parts/debian.sources": "Types: deb\nComponents: main\n", "parts/other.list": "deb http://tools.example/apt stable tools\n",
	} {
		path := filepath.Join(etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a.file(t, "apt-config", "#!/bin/sh\necho \"LIST='"+etc+"/sources.list'\"\necho \"PARTS='"+etc+"/parts/'\"\n", 0o755)
	plain, extended := &Client{Cache: t.TempDir(), Arch: "arm64"}, &Client{Cache: t.TempDir(), Arch: "arm64", Components: []string{"non-free-firmware"}}
	list, parts, err := plain.sources(context.Background(), plain.Cache)
	if err != nil || list != etc+"/sources.list" || parts != etc+"/parts/" {
		t.Errorf("without components: %s, %s, %v", list, parts, err)
	}
	for range 2 { // a second time over what is there
		if _, parts, err = extended.sources(context.Background(), extended.Cache); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(parts, "debian.sources"))
	if err != nil || !strings.Contains(string(b), "Components: main non-free-firmware") {
		t.Errorf("copy: %q, %v", b, err)
	}
	if err := os.Remove(filepath.Join(etc, "parts/other.list")); err != nil {
		t.Fatal(err)
	}
	if _, parts, err = extended.sources(context.Background(), extended.Cache); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(parts, "other.list")); !os.IsNotExist(err) {
		t.Errorf("a source that the host no longer has is still asked: %v", err)
	}
}
