package halo

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/model/version"
)

// withoutMethodsByName are programs in which nothing may look for methods by names that are
// found while it runs, as html/template and text/template do, net/rpc, and reflect's Method and
// MethodByName: the linker would keep every exported method of every type, megabytes.
var withoutMethodsByName = []string{"gateway-api", "halo-mesh", "halo-agent", "haloctl"}

// TestEveryBinarySaysWhichBuildItIs builds those of them that are ours to run.
func TestEveryBinarySaysWhichBuildItIs(t *testing.T) {
	names := []string{"gateway-api", "halo-mesh", "halo-agent", "halo-field", "halo-air", "haloctl", "halo-init", "halo-image", "halo-lab"}
	dir := t.TempDir()
	build := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + "/"} // no symbols: links sooner
	for _, n := range withoutMethodsByName {
		build = append(build, "-ldflags="+module+"/cmd/"+n+"=-s -w -dumpdep")
	}
	for _, n := range names {
		build = append(build, "./cmd/"+n)
	}
	out, err := exec.CommandContext(t.Context(), "go", build...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out[max(0, len(out)-4096):])
	}
	methodsByName(t, out)
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

// methodsByName reads what the linker says that refers to what (-dumpdep), program by program.
func methodsByName(t *testing.T, out []byte) {
	t.Helper()
	program, found := "", map[string]int{}
	for line := range bytes.Lines(out) {
		if name, ok := bytes.CutPrefix(line, []byte("# "+module+"/cmd/")); ok {
			program = string(bytes.TrimSpace(name))
			found[program] = 0
			continue
		}
		if bytes.Contains(line, []byte("<ReflectMethod>")) {
			if found[program]++; found[program] == 1 {
				t.Errorf("%s finds methods by their names: %s", program, line)
			}
		}
	}
	for _, n := range withoutMethodsByName {
		if _, ok := found[n]; !ok {
			t.Errorf("%s: the linker did not say what refers to what", n)
		}
	}
}
