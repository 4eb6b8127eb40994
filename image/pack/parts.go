package pack

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"halo.internal/hal/card"
	"halo.internal/image/fat"
	"halo.internal/image/instance"
	"halo.internal/image/layout"
	"halo.internal/image/prepare"
	"halo.internal/image/tool"
	"halo.internal/image/verity"
)

// squashfs packs a folder without anything of the moment: the build time for
// all times, root for all owners, the order of names.
func (b *builder) squashfs(ctx context.Context, dir, out string, options ...string) error {
	when := fmt.Sprint(b.prepared.Stamp.Built.Unix())
	args := append([]string{dir, out, "-noappend", "-quiet", "-no-progress", "-no-xattrs", "-all-root",
		"-mkfs-time", when, "-all-time", when, "-processors", "1"}, options...)
	// mksquashfs refuses -mkfs-time beside the variable.
	_, err := tool.Run(ctx, "env", append([]string{"-u", "SOURCE_DATE_EPOCH", "mksquashfs"}, args...)...)
	return err
}

// packRoot packs the root uncompressed, so that an update is a small delta
// against it, and appends the hash tree.
func (b *builder) packRoot(ctx context.Context) (err error) {
	out := b.path("root.img")
	if err := b.squashfs(ctx, b.root, out, "-noI", "-noId", "-noD", "-noF", "-noX"); err != nil {
		return err
	}
	f, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	h := sha256.New()
	h.Write([]byte("halo verity salt 1"))
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	salt := h.Sum(nil) // as good as random against precomputed collisions, and the same for the same root
	if err := b.within("root with hash tree", size+verity.Size(size), layout.RootSize); err != nil {
		return err
	}
	hash, err := verity.Append(f, size, salt)
	b.rootRef = layout.Root{Size: size, Hash: hex.EncodeToString(hash), Salt: hex.EncodeToString(salt)}
	return err
}

// packModules packs what is mounted over /lib/modules.
func (b *builder) packModules(ctx context.Context) (err error) {
	dir := filepath.Join(b.opts.Root, instance.Dir, instance.Prepared, instance.Kernel, "lib/modules")
	if err := b.squashfs(ctx, dir, b.path(layout.Modules), "-comp", "zstd", "-Xcompression-level", "9"); err != nil {
		return err
	}
	b.modules, err = os.ReadFile(b.path(layout.Modules))
	return err
}

// packBoot makes the boot FAT.
func (b *builder) packBoot(ctx context.Context) error {
	files, err := b.prepared.BoardFirmware(b.board)
	if err != nil {
		return err
	}
	if b.guid, err = bootGUID(b.path("flat.img"), b.prepared.Manifest.ImageBytes); err != nil {
		return err
	}
	for i, slot := range []byte{'a', 'b'} {
		slotFiles, err := b.slot(ctx, slot, i+1)
		if err != nil {
			return err
		}
		var sum int64
		for name, content := range slotFiles {
			files[layout.SlotDir(slot)+"/"+name] = content
			sum += int64(len(content))
		}
		if err := b.within("boot slot "+string(slot), sum, MaxBootSlot); err != nil {
			return err
		}
	}
	if err := b.within("initramfs", int64(len(b.prepared.Initrd)), MaxInitramfs); err != nil {
		return err
	}
	files[layout.SlotTXT] = []byte(layout.SlotLine('a'))
	files[layout.ConfigTXT] = []byte(prepare.ConfigTXT(b.board.Config) + "include " + layout.SlotTXT + "\n")
	return fat.Create(ctx, b.path("boot.img"), layout.BootSize, b.prepared.Stamp.Built, files)
}

// slot returns the files of one slot's directory.
func (b *builder) slot(ctx context.Context, slot byte, partition int) (map[string][]byte, error) {
	files, err := b.prepared.DeviceTrees(ctx, b.board)
	if err != nil {
		return nil, err
	}
	if files[layout.Kernel], err = b.prepared.Gzip(); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(b.modules)
	ref := layout.Slot{
		Version: b.prepared.Stamp.Version, Commit: b.prepared.Stamp.Commit, Board: b.opts.Board, Role: b.opts.Role,
		KernelRelease: b.prepared.Kernel.Release,
		ModulesSHA256: hex.EncodeToString(digest[:]), ModulesSize: int64(len(b.modules)),
		Root: b.rootRef,
	}
	if files[layout.Manifest], err = ref.Marshal(); err != nil {
		return nil, err
	}
	if b.board.HaLow != nil {
		if files[layout.HaLow], err = json.MarshalIndent(b.board.HaLow, "", "  "); err != nil {
			return nil, err
		}
	}
	files[layout.Initrd] = b.prepared.Initrd
	files[layout.Modules] = b.modules
	files[layout.Cmdline] = []byte(prepare.Cmdline(b.board.Consoles,
		fmt.Sprintf("root=PARTUUID=%s/PARTNROFF=%d", b.guid, partition),
		"halo.slot="+string(slot), b.prepared.Manifest.Kernel.Cmdline) + "\n")
	return files, nil
}

// bootGUID reads the boot partition's GUID from gok's table, after checking
// that gok still partitions as HALO's layout expects.
func bootGUID(image string, size int64) (string, error) {
	f, err := os.OpenFile(image, os.O_RDWR, 0) // a card.Device can be written to; this one is not
	if err != nil {
		return "", err
	}
	defer f.Close()
	table, err := card.ReadTable(f, size)
	if err != nil {
		return "", err
	}
	for n, want := range map[int]int64{1: layout.BootOffset, 2: layout.RootAStart, 3: layout.RootBStart, 4: layout.PermStart} {
		if p, ok := table.Partition(n); !ok || p.Start != want {
			return "", fmt.Errorf("partition %d of gok's image: expected it at %d, got %d", n, want, p.Start)
		}
	}
	return table.GUID(1), nil
}

// copyTable copies both copies of the partition table, without the boot code,
// which points at a kernel that is not there any more.
func copyTable(f io.WriterAt, image string, size int64) error {
	src, err := os.Open(image)
	if err != nil {
		return err
	}
	defer src.Close()
	const (
		bootCode  = 440
		tableSize = 34 * layout.SectorSize
		copySize  = 33 * layout.SectorSize
	)
	table := make([]byte, tableSize)
	if _, err := src.ReadAt(table, 0); err != nil {
		return err
	}
	clear(table[:bootCode])
	second := make([]byte, copySize)
	if _, err := src.ReadAt(second, size-copySize); err != nil {
		return err
	}
	_, err = f.WriteAt(table, 0)
	_, err2 := f.WriteAt(second, size-copySize)
	return errors.Join(err, err2)
}

// copyAt copies a file to an offset; runs of zeros stay holes.
func copyAt(f io.WriterAt, at int64, path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	buf := make([]byte, 1<<20)
	zero := make([]byte, len(buf))
	for {
		n, err := io.ReadFull(src, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writePerm writes the empty ext4; halo-init grows it to the card.
func (b *builder) writePerm(f io.WriterAt) error {
	z, err := gzip.NewReader(bytes.NewReader(b.prepared.Perm))
	if err != nil {
		return err
	}
	perm, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(perm, layout.PermStart)
	return err
}

// squashfsSize reads how many octets the SquashFS at an offset uses.
func squashfsSize(path string, at int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var super [96]byte
	if _, err := f.ReadAt(super[:], at); err != nil {
		return 0, err
	}
	if string(super[:4]) != "hsqs" {
		return 0, fmt.Errorf("expected a SquashFS at %d of %s, got %q", at, path, super[:4])
	}
	return int64(binary.LittleEndian.Uint64(super[40:])), nil
}

// gokrazySBOM wraps a bill of materials in the form that gokrazy's status page
// reads.
func gokrazySBOM(bom []byte) []byte {
	digest := sha256.Sum256(bom)
	b, err := json.Marshal(map[string]any{"sbom_hash": hex.EncodeToString(digest[:]), "sbom": json.RawMessage(bom)})
	if err != nil {
		panic("pack: " + err.Error()) // bom came out of encoding/json
	}
	return append(b, '\n')
}
