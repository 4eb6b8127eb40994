package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLacks(t *testing.T) {
	for name, tc := range map[string]struct{ config, want string }{
		"Debian's":         {"CONFIG_SECURITY_LANDLOCK=y\nCONFIG_LSM=\"landlock,lockdown,yama,bpf\"\n", ""},
		"without":          {"# CONFIG_SECURITY_LANDLOCK is not set\nCONFIG_LSM=\"landlock,yama\"\n", "CONFIG_SECURITY_LANDLOCK=y"},
		"not switched on":  {"CONFIG_SECURITY_LANDLOCK=y\nCONFIG_LSM=\"yama,landlocked\"\n", "landlock in CONFIG_LSM"},
		"nothing is known": {"", ""},
	} {
		tree := Tree{Release: "6.12.9", Image: filepath.Join(t.TempDir(), "vmlinuz-6.12.9")}
		if tc.config != "" {
			if err := os.WriteFile(filepath.Join(filepath.Dir(tree.Image), "config-6.12.9"), []byte(tc.config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := tree.Lacks()
		if err != nil || (len(got) > 0) != (tc.want != "") || tc.want != "" && !strings.Contains(got[0], tc.want) {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tc.want)
		}
	}
}
