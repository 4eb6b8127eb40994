package prepare

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"halo.internal/image/tool"
	"halo.internal/model/atomicfile"
	"halo.internal/model/version"
)

// stampFile is what model/version embeds.
const stampFile = "model/version/stamp/stamp.json"

// Stamp writes the version stamp of the repository at root, when it changed,
// and returns it. The build time is the commit's, or SOURCE_DATE_EPOCH.
func Stamp(ctx context.Context, root string) (version.Info, error) {
	git := func(args ...string) (string, error) {
		out, err := tool.Run(ctx, "git", append([]string{"-C", root}, args...)...)
		return strings.TrimSpace(string(out)), err
	}
	describe, err := git("describe", "--always", "--tags", "--dirty", "--abbrev=12")
	if err != nil {
		return version.Info{}, fmt.Errorf("stamp: %w", err)
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return version.Info{}, fmt.Errorf("stamp: %w", err)
	}
	if strings.HasSuffix(describe, "-dirty") {
		commit += "-dirty"
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		if epoch, err = git("log", "-1", "--format=%ct"); err != nil {
			return version.Info{}, fmt.Errorf("stamp: %w", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return version.Info{}, fmt.Errorf("stamp: SOURCE_DATE_EPOCH: expected seconds since 1970, got %q", epoch)
	}
	info := version.Info{Version: describe, Commit: commit, Built: time.Unix(seconds, 0).UTC()}

	// The toolchain is known to each binary itself.
	b, err := json.MarshalIndent(map[string]any{"version": info.Version, "commit": info.Commit, "built": info.Built}, "", "  ")
	if err != nil {
		return version.Info{}, err
	}
	b = append(b, '\n')
	path := filepath.Join(root, stampFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return info, nil // an unchanged file leaves go's build cache valid
	}
	return info, atomicfile.Write(path, b, 0o644)
}
