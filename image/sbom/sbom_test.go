package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"halo.internal/model/version"
)

// programs makes a folder that holds a Go program: this test.
func programs(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "halo-test"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDocument(t *testing.T) {
	parts, err := Programs(programs(t))
	if err != nil {
		t.Fatal(err)
	}
	parts = append(parts, Debian("operating-system", "linux-image-6.12.9+deb12-arm64", "6.12.9-1", strings.Repeat("ab", 32)), File("start4.elf", []byte("x")))
	b, err := Document("halo-node-rpi4b", version.Info{Version: "v1", Built: version.Unstamped}, parts)
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Format != "CycloneDX" || doc.Metadata.Component.Name != "halo-node-rpi4b" || doc.Metadata.Timestamp != "2026-11-01T00:00:00Z" {
		t.Errorf("got %+v", doc.Metadata)
	}
	found := map[string]Component{}
	for _, c := range doc.Components {
		found[c.Name] = c
	}
	for _, name := range []string{"halo-test", "linux-image-6.12.9+deb12-arm64", "start4.elf"} {
		if c, ok := found[name]; !ok || len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 64 {
			t.Errorf("%s: got %+v, want it with a SHA-256", name, c)
		}
	}
	if got := found["linux-image-6.12.9+deb12-arm64"].PURL; got != "pkg:deb/debian/linux-image-6.12.9%2Bdeb12-arm64@6.12.9-1" {
		t.Errorf("purl: got %s", got)
	}
	slices.Reverse(parts) // the order of the input does not matter
	again, err := Document("halo-node-rpi4b", version.Info{Version: "v1", Built: version.Unstamped}, parts)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("another order gives another document (%v)", err)
	}
}

func TestProgramsRefusesWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Programs(dir); err == nil || !strings.Contains(err.Error(), "script: expected a Go program") {
		t.Errorf("got %v", err)
	}
}
