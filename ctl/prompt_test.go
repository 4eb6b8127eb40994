package ctl

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestAConsoleHasNoFiles: whoever is logged in there may use haloctl, and not
// have it read or write what he names.
func TestAConsoleHasNoFiles(t *testing.T) {
	a := &app{env: Env{Getenv: func(string) string { return "" }}}
	n := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) {
				named := f.Name == "config" || f.Name == "out" || strings.Contains(f.Name, "file") || strings.Contains(f.Usage, "`file")
				if named != isFile(f) {
					t.Errorf("%s --%s: a file: %v", c.CommandPath(), f.Name, isFile(f))
				}
				if named {
					n++
				}
			})
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.command())
	if n < 10 {
		t.Errorf("only %d flags name files", n)
	}

	dir := t.TempDir()
	run, logout := Login(filepath.Join(dir, "mesh.sock"), "tty1", filepath.Join(dir, "session"))
	stolen := filepath.Join(dir, "stolen")
	for _, args := range [][]string{
		{"mesh", "capture", "--out", stolen}, {"support", "--out", stolen}, {"support"}, {"support", "--out", "-"},
		{"login", "--password-file", "/etc/shadow"}, {"status", "--config", "/etc/passwd"}, {"network", "export", "--out", stolen}, {"console"},
		{"telemetry", "import", "/etc/passwd", "--format", "csv"}, {"telemetry", "export", "--out", stolen},
		{"sensor", "lint", "/perm/halo/bundle.toml"}, {"node", "config", "n01", "--rules", "/perm/halo/bundle.toml"},
	} {
		var out bytes.Buffer
		run(t.Context(), args, &out, nil)
		if !strings.Contains(out.String(), "next: ") || strings.Contains(out.String(), "root:") {
			t.Errorf("%v: %s", args, out.String())
		}
	}
	if _, err := os.Stat(stolen); err == nil {
		t.Error("a file was written")
	}
	var out bytes.Buffer
	run(context.Background(), []string{"mesh", "status"}, &out, nil)
	if !strings.Contains(out.String(), "halo-mesh does not answer on "+dir) {
		t.Errorf("it is not the device that is asked: %s", out.String())
	}
	logout()
}
