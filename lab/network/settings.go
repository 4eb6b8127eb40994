package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"halo.internal/lab/disk"
	"halo.internal/model/paths"
)

// permPartition holds /perm, an ext4.
const permPartition = 4

// putSettings writes agent.toml onto a card that never started: onto its
// /perm, without mounting it.
func putSettings(ctx context.Context, card *disk.Disk, dir, text string) (err error) {
	perm, err := card.Copy(permPartition, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, perm.Close()) }()
	file := filepath.Join(dir, paths.AgentTOML)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	state := strings.TrimPrefix(paths.State, paths.Perm)
	script := fmt.Sprintf("mkdir %s\nwrite %q %s\n", state, file, path.Join(state, paths.AgentTOML))
	program, err := exec.LookPath("debugfs")
	if err != nil {
		program = "/usr/sbin/debugfs" // not in everybody's PATH
	}
	c := exec.CommandContext(ctx, program, "-w", "-f", "-", perm.Path)
	c.Stdin = strings.NewReader(script)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("debugfs: %w: %s; on Debian: apt-get install e2fsprogs", err, out)
	}
	// It exits with 0 whatever happens.
	if !strings.Contains(string(out), "Allocated inode") {
		return fmt.Errorf("debugfs: expected it to write %s, got: %s", paths.AgentTOML, out)
	}
	return perm.Commit()
}
