// Package devicetree merges a board's fragments into a kernel's device tree at
// build time. The firmware's own overlays name what mainline's trees do not
// have, so a board says what it wants in overlay sources of ours.
package devicetree

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/image/manifest"
	"halo.internal/image/tool"
)

// Merge returns, by file name, the device trees of a board: kernel's blobs
// below trees with the fragments below boards applied. A blob for another model
// than the board's is an error.
func Merge(ctx context.Context, board manifest.Board, trees, boards string) (map[string][]byte, error) {
	merged := map[string][]byte{}
	for _, t := range board.DeviceTree {
		b, err := merge(ctx, t, trees, boards)
		if err != nil {
			return nil, fmt.Errorf("device tree %s of %s: %w", t.File, board.Name, err)
		}
		merged[t.File] = b
		model, err := tool.Command{Name: "fdtget", Args: []string{"-", "/", "model"}, Stdin: b}.Run(ctx)
		if err != nil {
			return nil, err
		}
		got := strings.TrimSpace(string(model))
		if !slices.Contains(board.Models, got) {
			return nil, fmt.Errorf("device tree %s of %s: expected one of the models %q, got %q", t.File, board.Name, board.Models, got)
		}
	}
	return merged, nil
}

func merge(ctx context.Context, t manifest.DeviceTree, trees, boards string) ([]byte, error) {
	source := filepath.Join(trees, t.Source)
	if len(t.Fragments) == 0 {
		return os.ReadFile(source)
	}
	dir, err := os.MkdirTemp("", "halo-dt-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "merged.dtb")
	args := []string{"-i", source, "-o", out}
	for _, f := range t.Fragments {
		overlay := filepath.Join(dir, f+".dtbo")
		if _, err := tool.Run(ctx, "dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", overlay, filepath.Join(boards, f)); err != nil {
			return nil, err
		}
		args = append(args, overlay)
	}
	if _, err := tool.Run(ctx, "fdtoverlay", args...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}
