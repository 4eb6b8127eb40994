package prepare

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/image/devicetree"
	"halo.internal/image/drivers"
	"halo.internal/image/initramfs"
	"halo.internal/image/instance"
	"halo.internal/image/kernel"
	"halo.internal/image/layout"
	"halo.internal/image/manifest"
	"halo.internal/image/tool"
	"halo.internal/model/paths"
)

// drivers checks that every device of every board finds its driver, and every
// driver its firmware.
func (r *Result) drivers(ctx context.Context) error {
	index, err := r.Kernel.Index()
	if err != nil {
		return err
	}
	with := r.Manifest.Kernel // and what comes from outside, which images have too
	with.Modules = map[string][]string{"outside": r.Kernel.Outside}
	maps.Copy(with.Modules, r.Manifest.Kernel.Modules)
	var errs []error
	for _, board := range r.Boards {
		trees, err := r.DeviceTrees(ctx, board)
		if err != nil {
			return err
		}
		errs = append(errs, drivers.Check(index, with, board, trees))
	}
	paths, err := index.Select(ModuleNames(r.Manifest, r.Kernel))
	if err != nil {
		return err
	}
	errs = append(errs, r.Kernel.CheckVersions(ctx, index, paths))
	// What a module from outside loads is its maker's, and is looked at before that
	// is loaded (drivers/halow).
	if paths, err = index.Select(ModuleNames(r.Manifest, kernel.Tree{})); err != nil {
		return err
	}
	asked, err := index.Firmware(ctx, paths)
	if err != nil {
		return err
	}
	return errors.Join(append(errs, drivers.CheckFirmware(asked, r.Manifest))...)
}

// initramfs builds halo-init and packs it.
func (r *Result) initramfs(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "halo-init-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "init")
	args := append([]string{"build", "-o", program}, r.Manifest.BuildFlags...)
	_, err = tool.Command{
		Name: "go", Args: append(args, "./cmd/halo-init"), Dir: r.opts.Root,
		Env: []string{"GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0"},
	}.Run(ctx)
	if err != nil {
		return err
	}
	if r.Perm, err = initramfs.PermTemplate(ctx); err != nil {
		return err
	}
	r.Initrd, err = initramfs.Build(ctx, initramfs.Input{
		Init: program, Kernel: r.Kernel, Perm: r.Perm,
		Modules: r.Manifest.Kernel.Modules[manifest.Boot], Load: r.Manifest.Kernel.Load,
	})
	return err
}

// kernelPackage makes the kernel package for gok: kernel, device trees of all
// boards, command line, config.txt and modules.
func (r *Result) kernelPackage(ctx context.Context) error {
	index, err := r.Kernel.Index()
	if err != nil {
		return err
	}
	paths, err := index.Select(ModuleNames(r.Manifest, r.Kernel))
	if err != nil {
		return err
	}
	modules, err := index.Files(ctx, paths, r.Manifest.Kernel.Held)
	if err != nil {
		return err
	}
	return r.replace(instance.Kernel, func(dir string) error {
		if err := goPackage(dir, instance.Kernel); err != nil {
			return err
		}
		b, err := os.ReadFile(r.Kernel.Image)
		if err != nil {
			return err
		}
		if err := put(dir, layout.Kernel, b); err != nil {
			return err
		}
		for name, b := range modules {
			if err := put(dir, filepath.Join("lib/modules", r.Kernel.Release, name), b); err != nil {
				return err
			}
		}
		var consoles, config []string
		for _, board := range r.Boards {
			trees, err := r.DeviceTrees(ctx, board)
			if err != nil {
				return err
			}
			for name, b := range trees {
				if err := put(dir, name, b); err != nil {
					return err
				}
			}
			// The first board's consoles come last: qemu-virt's, whose only one it is.
			consoles = append(slices.Clone(board.Consoles), consoles...)
			config = append(config, board.Config...)
		}
		// gok puts the root's PARTUUID in place of this device. The flat image
		// also boots by EFI, whose stub loads the initramfs named here.
		cmdline := Cmdline(unique(consoles), "root=/dev/mmcblk0p2", `initrd=\`+layout.Initrd, r.Manifest.Kernel.Cmdline)
		if err := put(dir, layout.Cmdline, []byte(cmdline)); err != nil {
			return err
		}
		return put(dir, layout.ConfigTXT, []byte(ConfigTXT(unique(config))))
	})
}

// firmwarePackage makes the firmware package for gok: the initramfs, for which
// gok has no place of its own, and the firmware files of all boards.
func (r *Result) firmwarePackage(ctx context.Context) (err error) {
	if r.Firmware, err = firmwareModule(ctx, r.opts.Root); err != nil {
		return err
	}
	return r.replace(instance.Firmware, func(dir string) error {
		if err := goPackage(dir, instance.Firmware); err != nil {
			return err
		}
		if err := errors.Join(put(dir, layout.Initrd, r.Initrd), put(dir, filepath.Base(paths.BootReserve), make([]byte, layout.ReserveSize))); err != nil {
			return err
		}
		for _, board := range r.Boards {
			files, err := r.BoardFirmware(board)
			if err != nil {
				return err
			}
			for name, b := range files {
				if err := put(dir, name, b); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// BoardFirmware returns the boot firmware files of a board by name.
func (r *Result) BoardFirmware(board manifest.Board) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range board.Firmware {
		b, err := os.ReadFile(filepath.Join(r.Firmware, name))
		if err != nil {
			return nil, fmt.Errorf("firmware %s of board %s: %w", name, board.Name, err)
		}
		files[name] = b
	}
	return files, nil
}

// DeviceTrees returns the merged device trees of a board by name.
func (r *Result) DeviceTrees(ctx context.Context, board manifest.Board) (map[string][]byte, error) {
	return devicetree.Merge(ctx, board, r.Kernel.DeviceTrees, filepath.Join(r.opts.Root, manifest.BoardsDir))
}

// Cmdline joins a kernel command line: the consoles, then the rest.
func Cmdline(consoles []string, rest ...string) string {
	var words []string
	for _, c := range consoles {
		words = append(words, "console="+c)
	}
	return strings.Join(append(words, rest...), " ")
}

// ConfigTXT returns the firmware's config.txt with a board's lines.
func ConfigTXT(lines []string) string {
	return strings.Join(append(slices.Clone(lines),
		"kernel="+layout.Kernel,
		"initramfs "+layout.Initrd+" followkernel",
	), "\n") + "\n"
}

// unique drops what was there before and keeps the order.
func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
