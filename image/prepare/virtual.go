package prepare

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"halo.internal/image/apt"
	"halo.internal/image/flock"
	"halo.internal/image/kernel"
	"halo.internal/image/modules"
	"halo.internal/image/step"
)

// virtualModules returns the kernel with the drivers of a virtual machine's buses, and
// the package that they come from.
func virtualModules(ctx context.Context, c *apt.Client, tree kernel.Tree) (made kernel.Tree, p apt.Package, err error) {
	dir := filepath.Join(c.Cache, "virtual", tree.Release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return made, p, err
	}
	// Images and the test machine may be built at the same time.
	release, err := flock.Wait(ctx, filepath.Dir(dir))
	if err != nil {
		return made, p, err
	}
	defer func() { err = errors.Join(err, release()) }()
	source, p, err := modules.Source(ctx, c, tree.Release, modules.Virtual())
	if err != nil {
		return made, p, err
	}
	if _, err := modules.Build(ctx, modules.Options{Source: source, Out: dir, Cache: c.Cache, Kernel: tree}); err != nil {
		return made, p, err
	}
	made, err = kernel.WithOutside(ctx, c.Cache, tree, dir)
	return made, p, err
}

// VirtualSource returns the folder with the sources of those drivers, for whoever
// builds them alone.
func VirtualSource(ctx context.Context, steps step.Printer, opts Options, tree kernel.Tree) (string, error) {
	lock, err := apt.ReadLock(filepath.Join(opts.Root, LockFile))
	if err != nil {
		return "", err
	}
	c := &apt.Client{Cache: opts.Cache, Arch: architecture, Lock: lock, Warn: func(w string) { steps.Note("\nwarning: %s", w) }}
	dir, _, err := modules.Source(ctx, c, tree.Release, modules.Virtual())
	return dir, errors.Join(err, lock.Save())
}
