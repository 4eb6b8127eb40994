// Package verity writes the hash tree of Linux's dm-verity: what
// `veritysetup format --no-superblock --hash=sha256` computes with blocks of
// 4 KiB and format 1, appended to the data it protects.
package verity

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"halo.internal/image/layout"
)

const (
	block   = layout.BlockSize
	perHash = block / sha256.Size // hashes in one block of the tree
)

// Append reads size octets of data from f's start and writes the hash tree
// right behind them, the top level first, as the kernel lays it out. It returns
// the root hash.
func Append(f interface {
	io.ReaderAt
	io.WriterAt
}, size int64, salt []byte) ([]byte, error) {
	if size < 2*block || size%block != 0 { // the kernel builds no tree over a single block
		return nil, fmt.Errorf("verity: expected data of a multiple of %d octets, two at least, got %d", block, size)
	}
	level, err := hashBlocks(io.NewSectionReader(f, 0, size), size/block, salt)
	if err != nil {
		return nil, err
	}
	// levels[0] holds the hashes of the data, the last one a single block.
	levels := [][]byte{level}
	for len(level) > block {
		if level, err = hashBlocks(bytes.NewReader(level), int64(len(level)/block), salt); err != nil {
			return nil, err
		}
		levels = append(levels, level)
	}
	at := size
	for i := len(levels) - 1; i >= 0; i-- {
		if _, err := f.WriteAt(levels[i], at); err != nil {
			return nil, fmt.Errorf("verity: %w", err)
		}
		at += int64(len(levels[i]))
	}
	return digest(salt, levels[len(levels)-1]), nil
}

// Size returns how many octets the tree over size octets of data takes.
func Size(size int64) int64 {
	var sum int64
	for n := size / block; ; {
		n = (n + perHash - 1) / perHash
		sum += n * block
		if n <= 1 {
			return sum
		}
	}
}

// hashBlocks returns the hashes of n blocks, padded with zeros to whole blocks.
func hashBlocks(r io.Reader, n int64, salt []byte) ([]byte, error) {
	br := bufio.NewReaderSize(r, 1<<20)
	out := make([]byte, 0, (n+perHash-1)/perHash*block)
	var b [block]byte
	for range n {
		if _, err := io.ReadFull(br, b[:]); err != nil {
			return nil, fmt.Errorf("verity: %w", err)
		}
		out = append(out, digest(salt, b[:])...)
	}
	return out[:cap(out)], nil
}

// digest is the salted hash of format 1: the salt comes first.
func digest(salt, b []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(b)
	return h.Sum(nil)
}
