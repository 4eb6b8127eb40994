// Package tool runs the programs of the build host that halo-image leans on:
// file-system makers, the device-tree compiler, apt, go. It is the one list of
// them, so that a missing program is reported with the Debian package to
// install and `halo-image tools` can tell a fresh machine what it needs.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// packages names the Debian package of each program.
func packages() map[string]string {
	return map[string]string{
		"apt-cache":  "apt",
		"apt-config": "apt",
		"apt-get":    "apt",
		"depmod":     "kmod",
		"dpkg":       "dpkg",
		"dpkg-deb":   "dpkg",
		"dtc":        "device-tree-compiler",
		"fdtget":     "device-tree-compiler",
		"fdtoverlay": "device-tree-compiler",
		"git":        "git",
		"make":       "make",
		"mcopy":      "mtools",
		"mdel":       "mtools",
		"mdir":       "mtools",
		"mkfs.ext4":  "e2fsprogs",
		"mkfs.vfat":  "dosfstools",
		"mksquashfs": "squashfs-tools",
		"mmd":        "mtools",
		"unsquashfs": "squashfs-tools",
		"xz":         "xz-utils",
	}
}

// Missing returns the Debian packages, sorted, of the programs that are not
// installed.
func Missing() []string {
	var missing []string
	for name, pkg := range packages() {
		if _, err := find(name); err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	return missing
}

// find also looks where Debian keeps programs for root, which are not in the
// PATH of others.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	if pkg := packages()[name]; pkg != "" {
		return "", fmt.Errorf("%s is not installed; on Debian: apt-get install %s", name, pkg)
	}
	return "", fmt.Errorf("%s is not installed: %w", name, err)
}

// Command is one run of a program.
type Command struct {
	Name  string
	Args  []string
	Dir   string
	Env   []string // added to the environment
	Stdin []byte
}

// Run runs the command and returns what it wrote to standard output. An error
// carries the end of what it wrote to standard error.
func (c Command) Run(ctx context.Context) ([]byte, error) {
	path, err := find(c.Name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, ctx.Err())
		}
		if _, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("%s %s: %w: %s", c.Name, strings.Join(c.Args, " "), err, tail(stdout.String(), stderr.String()))
		}
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return stdout.Bytes(), nil
}

// Run is Command.Run without options.
func Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return Command{Name: name, Args: args}.Run(ctx)
}

// tail returns the last lines of stderr, or of stdout for programs that
// complain there.
func tail(stdout, stderr string) string {
	text := strings.TrimSpace(stderr)
	if text == "" {
		text = strings.TrimSpace(stdout)
	}
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
