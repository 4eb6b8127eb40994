// Package cli is halo-image's command line: every command is a call of a
// package of this room, so that tests and other programs need no process.
package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"halo.internal/image/manifest"
	"halo.internal/image/pack"
	"halo.internal/image/prepare"
	"halo.internal/image/step"
	"halo.internal/image/tool"
	"halo.internal/model/version"
)

// New returns the command tree.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:           "halo-image",
		Short:         "Builds HALO's card images, makes network bundles, writes cards",
		Version:       version.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("halo-image {{.Version}}\n")
	root.AddCommand(stampCommand(), renderCommand(), prepareCommand(), imageCommand(), testvmCommand(), modulesCommand(), bundleCommand(), flashCommand(), toolsCommand())
	return root
}

// repository finds the top of the repository from the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, manifest.File)); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("expected to run inside HALO's repository (a folder with %s), got %s", manifest.File, dir)
		}
	}
}

// buildOptions adds the flags that choose a kernel and resolves the places.
func buildOptions(cmd *cobra.Command) func() (prepare.Options, error) {
	var o prepare.Options
	cmd.Flags().StringVar(&o.KernelDeb, "kernel-deb", "", "Debian kernel package (file) to use instead of the locked one")
	cmd.Flags().StringVar(&o.KernelDir, "kernel-dir", "", "vendor's kernel folder (boot/vmlinuz-R, lib/modules/R, usr/lib/linux-image-R) to use instead")
	cmd.Flags().StringVar(&o.Modules, "modules", "", "folder of kernel modules from outside to put in, as halo-image modules makes it")
	cmd.Flags().StringVar(&o.Firmware, "firmware", "", "folder of firmware to put below /lib/firmware, beside that of the packing manifest")
	cmd.Flags().StringVar(&o.Cache, "cache", "", "folder for fetched packages (default $HALO_CACHE, else .cache in the repository)")
	cmd.MarkFlagsMutuallyExclusive("kernel-deb", "kernel-dir")
	return func() (prepare.Options, error) {
		root, err := repository()
		if err != nil {
			return o, err
		}
		o.Root = root
		if o.Cache == "" {
			o.Cache = os.Getenv("HALO_CACHE")
		}
		if o.Cache == "" {
			o.Cache = filepath.Join(root, ".cache")
		}
		o.Cache, err = filepath.Abs(o.Cache)
		return o, err
	}
}

func stampCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stamp",
		Short: "Write the version stamp that every binary embeds",
		Long:  "Writes model/version/stamp/stamp.json from git (build time from the commit, or SOURCE_DATE_EPOCH), only when it changed.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := repository()
			if err != nil {
				return err
			}
			info, err := prepare.Stamp(cmd.Context(), root)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), info)
			return nil
		},
	}
}

func renderCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "render",
		Short: "Render instance/ from the packing manifest, the boards and go.mod",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			root, err := repository()
			if err != nil {
				return err
			}
			m, err := manifest.Read(root)
			if err != nil {
				return err
			}
			boards, err := manifest.Boards(root)
			if err != nil {
				return err
			}
			return prepare.Render(root, m, boards)
		},
	}
}

func prepareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Fetch kernel and firmware and build the initramfs, so that plain gok works",
		Long: `Writes the version stamp, renders instance/, fetches the kernel and firmware
packages through apt (signatures checked, private directories, no root), builds
the initramfs and fills instance/prepared. After it, plain gok builds an image:

  go tool gok --parent_dir instance -i gateway overwrite --full disk.img --target_storage_bytes 1258299392`,
		Args: cobra.NoArgs,
	}
	options := buildOptions(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		o, err := options()
		if err != nil {
			return err
		}
		release, err := prepare.Exclusive(cmd.Context(), o.Root)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
		_, err = prepare.Run(cmd.Context(), step.NewPrinter(cmd.ErrOrStderr()), o)
		return err
	}
	return cmd
}

func imageCommand() *cobra.Command {
	var o pack.Options
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Build a card image with both slots, and its bill of materials",
		Example: "  halo-image image --board rpi4b --role gateway --out out",
		Args:    cobra.NoArgs,
	}
	options := buildOptions(cmd)
	cmd.Flags().StringVar(&o.Board, "board", "", "board: a file of boards/ (required)")
	cmd.Flags().StringVar(&o.Role, "role", "", "gateway or node (required)")
	cmd.Flags().StringVar(&o.Out, "out", "out", "folder for the image")
	for _, f := range []string{"board", "role"} {
		if err := cmd.MarkFlagRequired(f); err != nil {
			panic("halo-image: " + err.Error()) // the flag is defined above
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Options, err = options(); err != nil {
			return err
		}
		image, err := pack.Build(cmd.Context(), step.NewPrinter(cmd.ErrOrStderr()), o)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", image.Path, image.SBOM)
		return nil
	}
	return cmd
}

func testvmCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "testvm",
		Short: "Gather what the machine of fast lab tests boots",
		Long: `Writes into the folder testvm of --out: the kernel of the images, all modules and
firmware of the packing manifest, and its test packages with the libraries they
need. Tests add their own program (lab/testvm).`,
		Args: cobra.NoArgs,
	}
	options := buildOptions(cmd)
	cmd.Flags().StringVar(&out, "out", "out", "folder that holds built images")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		o, err := options()
		if err != nil {
			return err
		}
		release, err := prepare.Exclusive(cmd.Context(), o.Root)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
		return prepare.TestVM(cmd.Context(), step.NewPrinter(cmd.ErrOrStderr()), o, out)
	}
	return cmd
}

func toolsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tools",
		Short: "List the Debian packages that this host lacks for building images",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, p := range tool.Missing() {
				fmt.Fprintln(cmd.OutOrStdout(), p)
			}
			return nil
		},
	}
}
