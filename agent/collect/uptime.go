package collect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// uptime reads /proc/uptime, which procfs leaves out.
type uptime struct{ path string }

func newUptime(root string) uptime { return uptime{filepath.Join(root, "proc", "uptime")} }

func (uptime) Name() string { return "uptime" }

func (u uptime) Collect(context.Context) ([]Reading, error) {
	b, err := os.ReadFile(u.path)
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(b), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil || s < 0 || s > 1e12 {
		return nil, fmt.Errorf("%s: expected seconds since the start, got %.40q", u.path, first)
	}
	return []Reading{integer("system.host.uptime_s", "s", 0, int64(s))}, nil
}
