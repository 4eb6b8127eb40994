//go:build lab

package api

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestALinterFindsNothing: Spectral, with its own rules for OpenAPI, has neither errors nor
// warnings about the document. It comes from npm, by testdata/lint/package-lock.json.
func TestALinterFindsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	if err := fs.WalkDir(os.DirFS("testdata/lint"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join("testdata/lint", name))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), b, 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	text, err := f.openapi()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "openapi.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), name, args...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	if out := run(filepath.Join(dir, "node_modules", ".bin", "spectral"), "lint", "openapi.json", "--ruleset", "spectral.yaml", "--fail-severity", "warn"); !strings.Contains(out, "No results") {
		t.Errorf("Spectral says:\n%s", out)
	}
}
