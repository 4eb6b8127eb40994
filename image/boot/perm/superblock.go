package perm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// ext4 has copies of its superblock from 128 MiB on, and none in a smaller
// volume. The superblock itself is two sectors, so that a power cut can leave
// one old and one new: its checksum is wrong then, and nothing mounts. Another
// copy lies outside the volume.

// superblocks keeps a superblock outside the volume: card.Superblock.
type superblocks interface {
	Load() ([]byte, error)
	Store([]byte) error
}

// superblock is the raw ext4 superblock (fs/ext4/ext4.h).
type superblock [1024]byte

const superblockAt = 1024 // octets, in the volume

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// valid tells whether it is whole: its last four octets are the CRC-32C of
// the others, not inverted at the end.
func (s *superblock) valid() bool {
	return s.ext4() && binary.LittleEndian.Uint32(s[1020:]) == ^crc32.Checksum(s[:1020], castagnoli)
}

// ext4 tells whether it has ext4's magic number and a block size of ext4's.
func (s *superblock) ext4() bool {
	return s[0x38] == 0x53 && s[0x39] == 0xef && binary.LittleEndian.Uint32(s[0x18:]) <= 6
}

// size of the file system, octets; 0 when there is none of that size.
func (s *superblock) size() int64 {
	blocks := int64(binary.LittleEndian.Uint32(s[0x150:]))<<32 | int64(binary.LittleEndian.Uint32(s[4:]))
	if blocks < 0 || blocks > 1<<40 {
		return 0
	}
	return blocks << (10 + min(binary.LittleEndian.Uint32(s[0x18:]), 6))
}

// alike tells whether both lead to the same file system: its size, features
// and UUID. The rest is counters, which the journal and a mount make right.
func (s *superblock) alike(o *superblock) bool {
	return bytes.Equal(s[:12], o[:12]) && bytes.Equal(s[0x58:0x78], o[0x58:0x78]) && bytes.Equal(s[0x150:0x154], o[0x150:0x154])
}

func readSuperblock(device string) (s superblock, err error) {
	f, err := os.Open(device)
	if err != nil {
		return s, err
	}
	defer f.Close()
	if _, err = f.ReadAt(s[:], superblockAt); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return s, err
}

// keepSuperblock takes a copy of a mounted volume's, once in its life and when
// it has grown.
func (v Volume) keepSuperblock() error {
	now, err := readSuperblock(v.Device)
	if err != nil || !now.valid() {
		return err // it is being changed: the next start is soon enough
	}
	kept, err := v.keptSuperblock()
	if err == nil && kept.alike(&now) {
		return nil
	}
	return v.Superblocks.Store(now[:])
}

func (v Volume) keptSuperblock() (s superblock, err error) {
	b, err := v.Superblocks.Load()
	if err != nil {
		return s, err
	}
	if len(b) != len(s) || !(*superblock)(b).valid() {
		return s, errors.New("kept superblock: it is none")
	}
	return superblock(b), nil
}

// mendSuperblock puts the kept copy in the place of a torn one, and tells
// whether it did.
func (v Volume) mendSuperblock() (bool, error) {
	now, err := readSuperblock(v.Device)
	if err != nil || now.valid() {
		return false, err // what is wrong lies elsewhere
	}
	kept, err := v.keptSuperblock()
	if err != nil {
		return false, err
	}
	if n := kept.size(); n == 0 || n > v.Size {
		return false, fmt.Errorf("kept superblock: expected a file system of at most %d octets, got %d", v.Size, kept.size())
	}
	f, err := os.OpenFile(v.Device, os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	_, err = f.WriteAt(kept[:], superblockAt)
	err = errors.Join(err, f.Sync(), f.Close())
	return err == nil, err
}
