package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Lacks returns what a kernel was built without that HALO can do without, but not as
// well, by the config that lies beside it. A vendor's kernel may have none there: then
// nothing is known, and /health says what is missing when it runs.
func (t Tree) Lacks() ([]string, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(t.Image), "config-"+t.Release))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	option := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			option[name] = strings.Trim(value, `"`)
		}
	}
	var lacks []string
	switch {
	case option["CONFIG_SECURITY_LANDLOCK"] != "y":
		lacks = append(lacks, "CONFIG_SECURITY_LANDLOCK=y: gateway-api could write outside of its folder")
	case !slices.Contains(strings.Split(option["CONFIG_LSM"], ","), "landlock"):
		lacks = append(lacks, "landlock in CONFIG_LSM: it would have to be named by lsm= on the kernel's command line")
	}
	return lacks, nil
}
