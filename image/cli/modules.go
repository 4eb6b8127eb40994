package cli

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"halo.internal/image/modules"
	"halo.internal/image/prepare"
	"halo.internal/image/step"
)

func modulesCommand() *cobra.Command {
	var out string
	var vars []string
	var virtual bool
	cmd := &cobra.Command{
		Use:   "modules SOURCE",
		Short: "Build kernel modules from outside against the images' kernel",
		Long: `Builds the modules of a source folder (with a Kbuild or Makefile: Morse's driver,
a patched cfg80211) against the kernel of the images, into a folder that image,
prepare and testvm take by --modules. Headers and compiler come from apt and are
installed nowhere; what was built before is taken from the cache. A module that
was built for another kernel is refused.

With --virtual there is no source folder: the drivers of the I2C buses and GPIO lines
of halo-lab's machines are taken out of Debian's source of the kernel, with three
faults mended. Images of boards that are virtual have them anyway.`,
		Example: "  halo-image modules morse_driver --out out/morse --var CONFIG_WLAN_VENDOR_MORSE=m --var CONFIG_MORSE_SDIO=y",
		Args: func(cmd *cobra.Command, args []string) error {
			if virtual {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
	}
	options := buildOptions(cmd)
	cmd.Flags().StringVar(&out, "out", "", "folder for the modules: empty, or that of a build before (required)")
	cmd.Flags().StringArrayVar(&vars, "var", nil, "variable for make, e.g. CONFIG_MORSE_SDIO=y; may be given several times")
	cmd.Flags().BoolVar(&virtual, "virtual", false, "build the drivers of virtual machines' buses from the kernel's source")
	if err := cmd.MarkFlagRequired("out"); err != nil {
		panic("halo-image: " + err.Error()) // the flag is defined above
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		o, err := options()
		if err != nil {
			return err
		}
		release, err := prepare.Exclusive(cmd.Context(), o.Root)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
		o.Modules = "" // these are to be
		var r modules.Record
		steps := step.NewPrinter(cmd.ErrOrStderr())
		tree, err := prepare.Kernel(cmd.Context(), steps, o)
		if err != nil {
			return err
		}
		if err := steps.Do("modules from outside", func() error {
			source := ""
			if virtual {
				if source, err = prepare.VirtualSource(cmd.Context(), steps, o, tree); err != nil {
					return err
				}
			} else {
				source = args[0]
			}
			r, err = modules.Build(cmd.Context(), modules.Options{Source: source, Out: out, Cache: o.Cache, Vars: vars, Kernel: tree})
			return err
		}); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(r.Modules)) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", r.Modules[name], filepath.Join(out, name))
		}
		return nil
	}
	return cmd
}
