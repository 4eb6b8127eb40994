// Package pack makes a card image: gok builds one flat system, and pack lays
// that out as HALO's two slots (see ARCHITECTURE.md, "The card"). Only gok's
// partition table and the files of its root are kept; both boot slots, both
// roots with their hash trees, the slot state and /perm are written here, each
// as a function of the commit alone.
package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"halo.internal/hal/card"
	"halo.internal/image/instance"
	"halo.internal/image/layout"
	"halo.internal/image/manifest"
	"halo.internal/image/prepare"
	"halo.internal/image/sbom"
	"halo.internal/image/step"
	"halo.internal/image/tool"
	"halo.internal/update/slots"
)

// Options name an image.
type Options struct {
	prepare.Options
	Board string
	Role  string
	Out   string // folder
}

// Budgets of an image; more is an error, since flashed cards can't be
// repartitioned.
const (
	MaxProgram   = 20 << 20
	MaxInitramfs = 4 << 20
	MaxBootSlot  = 35 << 20
	MaxFlatRoot  = 64 << 20 // as gok compresses it
)

// Image is what was made.
type Image struct {
	Path string
	SBOM string
}

// builder carries one run from step to step.
type builder struct {
	opts     Options
	board    manifest.Board
	prepared *prepare.Result
	work     string // scratch folder beside the output

	root    string // tree of the root file system
	rootRef layout.Root
	modules []byte // modules image
	guid    string // of the boot partition, from which root= counts
	bom     []byte
	figures []string // lines to print: sizes and their budgets
}

// Build prepares, runs gok and lays out the slots.
func Build(ctx context.Context, steps step.Printer, opts Options) (_ Image, err error) {
	board, err := manifest.ReadBoard(opts.Root, opts.Board)
	if err != nil {
		return Image{}, err
	}
	m, err := manifest.Read(opts.Root)
	if err != nil {
		return Image{}, err
	}
	if _, err := m.Role(opts.Role); err != nil {
		return Image{}, err
	}
	release, err := prepare.Exclusive(ctx, opts.Root)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	opts.Virtual = opts.Virtual || board.Virtual
	prepared, err := prepare.Run(ctx, steps, opts.Options)
	if err != nil {
		return Image{}, err
	}
	if err := prepare.Fence(opts.Out); err != nil {
		return Image{}, err
	}
	name := "halo-" + opts.Role + "-" + opts.Board
	work, err := os.MkdirTemp(opts.Out, "."+name+"-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(work)
	b := &builder{opts: opts, board: board, prepared: prepared, work: work, root: filepath.Join(work, "root")}
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"gok: programs and flat image", b.gok},
		{"root file system", b.takeRoot},
		{"bill of materials", b.materials},
		{"root with hash tree", b.packRoot},
		{"modules image", b.packModules},
		{"boot partition with both slots", b.packBoot},
		{"card image", b.assemble},
	} {
		if err := steps.Do(s.name, func() error { return s.do(ctx) }); err != nil {
			return Image{}, err
		}
	}
	for _, line := range b.figures {
		steps.Note("%s", line)
	}
	out := Image{Path: filepath.Join(opts.Out, name+".img"), SBOM: filepath.Join(opts.Out, name+".cdx.json")}
	return out, errors.Join(
		os.Rename(b.path("card.img"), out.Path),
		os.WriteFile(out.SBOM, b.bom, 0o644),
	)
}

func (b *builder) path(name string) string { return filepath.Join(b.work, name) }

// gok builds the flat image, exactly as it does when run by hand.
func (b *builder) gok(ctx context.Context) error {
	full, err := filepath.Abs(b.path("flat.img"))
	if err != nil {
		return err
	}
	_, err = tool.Command{Name: "go", Dir: b.opts.Root, Args: []string{
		"tool", "gok", "--parent_dir", "instance", "-i", instance.Name(b.opts.Role, b.board),
		"overwrite", "--full", full, "--target_storage_bytes", fmt.Sprint(b.prepared.Manifest.ImageBytes),
	}}.Run(ctx)
	return err
}

// takeRoot takes the files of gok's root, without those that belong elsewhere
// or come from the build host.
func (b *builder) takeRoot(ctx context.Context) error {
	_, err := tool.Run(ctx, "unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-o", fmt.Sprint(layout.RootAStart), "-d", b.root, b.path("flat.img"))
	if err != nil {
		return err
	}
	size, err := squashfsSize(b.path("flat.img"), layout.RootAStart)
	if err != nil {
		return err
	}
	if err := b.within("root as gok compresses it", size, MaxFlatRoot); err != nil {
		return err
	}
	if err := b.programs(); err != nil {
		return err
	}
	for _, path := range []string{
		"lib/modules",           // in the slot, beside the kernel
		"etc/localtime",         // the host's time zone; HALO keeps UTC
		"etc/ssl/ca-bundle.pem", // the host's authorities; HALO trusts its own
	} {
		if err := os.RemoveAll(filepath.Join(b.root, path)); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(b.root, "lib/modules"), 0o755)
}

// programs checks that no program has outgrown its budget.
func (b *builder) programs() error {
	entries, err := os.ReadDir(filepath.Join(b.root, "user"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := b.within("program "+e.Name(), info.Size(), MaxProgram); err != nil {
			return err
		}
	}
	return nil
}

// materials writes the bill of materials.
func (b *builder) materials(context.Context) error {
	parts, err := sbom.Programs(filepath.Join(b.root, "gokrazy"), filepath.Join(b.root, "user"))
	if err != nil {
		return err
	}
	for i, p := range b.prepared.Packages {
		kind := "data"
		if i == 0 { // the kernel comes first
			kind = "operating-system"
		}
		parts = append(parts, sbom.Debian(kind, p.Name, p.Version, p.SHA256))
	}
	firmware, err := b.prepared.BoardFirmware(b.board)
	if err != nil {
		return err
	}
	for name, content := range firmware {
		parts = append(parts, sbom.File(name, content))
	}
	err = filepath.WalkDir(filepath.Join(b.root, "lib/firmware"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		parts = append(parts, sbom.File(strings.TrimPrefix(path, b.root), content))
		return err
	})
	if err != nil {
		return err
	}
	if b.bom, err = sbom.Document("halo-"+b.opts.Role+"-"+b.opts.Board, b.prepared.Stamp, parts); err != nil {
		return err
	}
	// In place of gok's, which hashes paths of the build host.
	return os.WriteFile(filepath.Join(b.root, "etc/gokrazy/sbom.json"), gokrazySBOM(b.bom), 0o644)
}

// assemble writes the card: gok's partition table, then everything else.
func (b *builder) assemble(context.Context) (err error) {
	f, err := os.Create(b.path("card.img"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size := b.prepared.Manifest.ImageBytes
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := copyTable(f, b.path("flat.img"), size); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		at   int64
	}{
		{"boot.img", layout.BootOffset}, {"root.img", layout.RootAStart}, {"root.img", layout.RootBStart},
	} {
		if err := copyAt(f, part.at, b.path(part.name)); err != nil {
			return err
		}
	}
	if err := b.writePerm(f); err != nil {
		return err
	}
	state := card.SlotState(f)
	for range 2 { // both copies
		if err := slots.Store(state, slots.New()); err != nil {
			return err
		}
	}
	return nil
}

// within checks a budget and prints how much of it is used.
func (b *builder) within(what string, got, limit int64) error {
	const mib = 1 << 20
	if got > limit {
		return fmt.Errorf("%s: expected at most %.1f MiB, got %.1f MiB", what, float64(limit)/mib, float64(got)/mib)
	}
	b.figures = append(b.figures, fmt.Sprintf("%-34s %6.1f of %d MiB", what, float64(got)/mib, limit/mib))
	return nil
}
