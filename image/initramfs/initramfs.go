// Package initramfs packs the initial RAM file system: halo-init as /init, the
// modules that a board needs to reach its card, and an empty ext4 from which
// /perm can be made anew. It is a function of its inputs alone: no times, no
// owners, no order of a directory.
package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"halo.internal/image/kernel"
	"halo.internal/image/layout"
	"halo.internal/image/tool"
	"halo.internal/model/cpio"
	"halo.internal/model/version"
)

// Input is what goes in.
type Input struct {
	Init    string // path of the halo-init binary
	Kernel  kernel.Tree
	Modules []string // to have aboard
	Load    []string // to load at once, in order
	Perm    []byte   // gzip'd empty ext4 (PermTemplate)
}

// Build returns the gzip'd archive.
func Build(ctx context.Context, in Input) ([]byte, error) {
	a := cpio.Archive{}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "newroot"} {
		a.Dir(d)
	}
	program, err := os.ReadFile(in.Init)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	a.File(layout.Init, 0o755, program)
	a.File(layout.PermTemplate, 0o644, in.Perm)
	a.File(layout.BootModules, 0o644, []byte(strings.Join(in.Load, "\n")+"\n"))

	index, err := in.Kernel.Index()
	if err != nil {
		return nil, err
	}
	paths, err := index.Select(in.Modules)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	files, err := index.Files(ctx, paths, nil)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	for name, b := range files {
		a.File(filepath.Join("lib/modules", in.Kernel.Release, name), 0o644, b)
	}

	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := a.Write(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Numbers of the empty ext4: small enough to carry in RAM, with what growing
// it online to any card needs (reserved descriptors up to 1 TiB, an inode for
// each 32 KiB of every group).
const (
	permBlocks = 8192 // of 4 KiB
	permInodes = 4096
	permUUID   = "48414c4f-7065-726d-8000-000000000001"
	permHash   = "48414c4f-7065-726d-8000-000000000002"
)

// mke2fsConfig stands in for the host's mke2fs.conf: the features of /perm
// are not for a host to choose.
const mke2fsConfig = `[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
[fs_types]
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
small = {
}
`

// PermTemplate makes the empty ext4, gzip'd. It is the same for every card and
// build; its time lies before the first of them.
func PermTemplate(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "halo-perm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	config, path := filepath.Join(dir, "mke2fs.conf"), filepath.Join(dir, "perm.ext4")
	if err := os.WriteFile(config, []byte(mke2fsConfig), 0o644); err != nil {
		return nil, err
	}
	when := fmt.Sprint(version.Unstamped.Unix())
	_, err = tool.Command{Name: "mkfs.ext4", Args: []string{
		"-q", "-F", "-t", "ext4", "-L", "perm", "-b", "4096", "-m", "1", "-N", fmt.Sprint(permInodes), "-I", "256", "-J", "size=4",
		"-U", permUUID, "-E", "resize=268435456,lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed=" + permHash,
		path, fmt.Sprint(permBlocks),
	}, Env: []string{"MKE2FS_CONFIG=" + config, "E2FSPROGS_FAKE_TIME=" + when, "SOURCE_DATE_EPOCH=" + when}}.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("template of /perm: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(b); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
