package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"halo.internal/lab/disk"
	"halo.internal/model/paths"
)

// permPartition holds /perm, an ext4.
const permPartition = 4

// putSettings writes agent.toml onto a card that never started.
func putSettings(ctx context.Context, card *disk.Disk, dir, text string) error {
	file := filepath.Join(dir, paths.AgentTOML)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	state := strings.TrimPrefix(paths.State, paths.Perm)
	return editPerm(ctx, card, dir, func(p perm) error {
		_, err := p.debugfs(ctx, "mkdir "+state, fmt.Sprintf("write %q %s", file, path.Join(state, paths.AgentTOML)))
		return err
	})
}

const (
	filler = "/filler"
	spare  = 16 // blocks for what the filler itself needs
)

var freeBlocks = regexp.MustCompile(`Free blocks: +(\d+)`)

// FillPerm leaves no room on the data partition of a machine that is off.
func (m *Machine) FillPerm(ctx context.Context) error {
	return editPerm(ctx, m.Disk, m.dir, func(p perm) error { return p.fill(ctx) })
}

// EmptyPerm takes back what FillPerm did.
func (m *Machine) EmptyPerm(ctx context.Context) error {
	return editPerm(ctx, m.Disk, m.dir, func(p perm) error { return p.empty(ctx) })
}

// Unmounted returns an error unless the data partition of a machine that is off was
// unmounted in order: nothing waits in its journal, and nothing is to be mended.
func (m *Machine) Unmounted(ctx context.Context) (err error) {
	c, err := m.Disk.Copy(permPartition, m.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return perm(c.Path).clean(ctx)
}

// perm is a file with a copy of a data partition.
type perm string

// editPerm changes the data partition of a machine that is off, without
// mounting it: that would need root.
func editPerm(ctx context.Context, card *disk.Disk, dir string, edit func(perm) error) (err error) {
	c, err := card.Copy(permPartition, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	p := perm(c.Path)
	if err := p.replay(ctx); err != nil {
		return err
	}
	if err := edit(p); err != nil {
		return err
	}
	return c.Commit()
}

// replay brings a file system to rest whose machine has lost its power.
func (p perm) replay(ctx context.Context) error {
	_, _, err := p.run(ctx, "", "e2fsck", "-p", string(p))
	const repaired = 1
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == repaired {
		return nil
	}
	return err
}

// state are the lines of dumpe2fs that say whether a file system was unmounted: a journal
// that waits to be replayed is a feature.
var state = regexp.MustCompile(`(?s)Filesystem features:([^\n]*)\n.*Filesystem state: +([^\n]*)\n`)

// clean returns an error unless the file system was unmounted in order.
func (p perm) clean(ctx context.Context) error {
	out, _, err := p.run(ctx, "", "dumpe2fs", "-h", string(p))
	if err != nil {
		return err
	}
	is := state.FindStringSubmatch(out)
	if is == nil {
		return fmt.Errorf("dumpe2fs: expected features and state, got: %s", out)
	}
	if slices.Contains(strings.Fields(is[1]), "needs_recovery") || is[2] != "clean" {
		return fmt.Errorf("expected a file system that was unmounted, got one that is %s, with the features%s", is[2], is[1])
	}
	_, _, err = p.run(ctx, "", "e2fsck", "-fn", string(p))
	return err
}

func (p perm) fill(ctx context.Context) error {
	free, err := p.free(ctx)
	if err != nil {
		return err
	}
	_, err = p.debugfs(ctx, "write "+os.DevNull+" "+filler, fmt.Sprintf("fallocate %s 0 %d", filler, free-spare-1))
	return err
}

func (p perm) empty(ctx context.Context) error {
	_, err := p.debugfs(ctx, "rm "+filler)
	return err
}

// free returns the number of blocks that root may still use.
func (p perm) free(ctx context.Context) (int, error) {
	stats, err := p.debugfs(ctx, "show_super_stats -h")
	if err != nil {
		return 0, err
	}
	text := freeBlocks.FindStringSubmatch(stats)
	if text == nil {
		return 0, fmt.Errorf("debugfs: expected the number of free blocks, got: %s", stats)
	}
	return strconv.Atoi(text[1])
}

// debugfs runs commands and returns what they print. It exits with 0 whatever
// happens, and complains after a line with its version.
func (p perm) debugfs(ctx context.Context, script ...string) (string, error) {
	out, complaints, err := p.run(ctx, strings.Join(script, "\n")+"\n", "debugfs", "-w", "-f", "-", string(p))
	if _, text, _ := strings.Cut(complaints, "\n"); err == nil && strings.TrimSpace(text) != "" {
		err = fmt.Errorf("debugfs: %s", text)
	}
	return out, err
}

// run runs a program of e2fsprogs.
func (p perm) run(ctx context.Context, stdin, name string, args ...string) (stdout, stderr string, err error) {
	program, err := exec.LookPath(name)
	if err != nil {
		program = "/usr/sbin/" + name // not in everybody's PATH
	}
	c := exec.CommandContext(ctx, program, args...)
	c.Stdin = strings.NewReader(stdin)
	var out, complaints strings.Builder
	c.Stdout, c.Stderr = &out, &complaints
	if err := c.Run(); err != nil {
		return "", "", fmt.Errorf("%s: %w: %s%s; on Debian: apt-get install e2fsprogs", name, err, out.String(), complaints.String())
	}
	return out.String(), complaints.String(), nil
}
