package profile

import (
	"crypto/sha256"
	"math/bits"
)

// The Merkle tree of RFC 9162 2.1. Paths go from the leaf up.

func leaf(e entry) [32]byte {
	b := append([]byte{0}, e.tag[:]...)
	return sha256.Sum256(append(b, e.sealed[:]...))
}

func leaves(entries []entry) [][32]byte {
	list := make([][32]byte, len(entries))
	for i, e := range entries {
		list[i] = leaf(e)
	}
	return list
}

func above(left, right [32]byte) [32]byte {
	b := append([]byte{1}, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

// half is the largest power of two below n, which is two or more.
func half(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func root(leaves [][32]byte) [32]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := half(len(leaves))
	return above(root(leaves[:k]), root(leaves[k:]))
}

// path returns what proves the leaf at i.
func path(i int, leaves [][32]byte) [][32]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := half(len(leaves))
	if i < k {
		return append(path(i, leaves[:k]), root(leaves[k:]))
	}
	return append(path(i-k, leaves[k:]), root(leaves[:k]))
}

// prove returns the root of n leaves that the leaf at i and its path lead to, and
// whether the path has the right length.
func prove(i, n int, at [32]byte, path [][32]byte) (top [32]byte, ok bool) {
	if n == 1 {
		return at, len(path) == 0
	}
	if len(path) == 0 {
		return top, false
	}
	k, last := half(n), path[len(path)-1]
	if i < k {
		left, ok := prove(i, k, at, path[:len(path)-1])
		return above(left, last), ok
	}
	right, ok := prove(i-k, n-k, at, path[:len(path)-1])
	return above(last, right), ok
}
