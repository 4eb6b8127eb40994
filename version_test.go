package halo

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/model/version"
)

// TestEveryBinarySaysWhichBuildItIs builds those of them that are ours to run.
func TestEveryBinarySaysWhichBuildItIs(t *testing.T) {
	names := []string{"gateway-api", "halo-mesh", "halo-agent", "halo-field", "halo-air", "haloctl", "halo-init", "halo-image", "halo-lab"}
	dir := t.TempDir()
	build := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + "/"} // no symbols: links sooner
	for _, n := range names {
		build = append(build, "./cmd/"+n)
	}
	if out, err := exec.CommandContext(t.Context(), "go", build...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	want := version.Get() // of the same stamp
	for _, n := range names {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, filepath.Join(dir, n), "--version").Output()
		cancel()
		if err != nil {
			t.Errorf("%s --version: %v", n, err)
			continue
		}
		for _, s := range []string{n + " ", want.Version, want.Commit, want.Built.UTC().Format(time.RFC3339), want.Go} {
			if !strings.Contains(string(out), s) {
				t.Errorf("%s --version: %q, want %q in it", n, out, s)
			}
		}
	}
}
