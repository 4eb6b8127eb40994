package wire

// MaxDigest bounds the digest of an inventory.
const MaxDigest = 64

// check bounds the digest alone: the whole is bounded as every message is, and what a node
// says of its buses that can't be so is for whoever keeps it to refuse. It must not end the
// stream, with which the node's readings come.
func (m InventoryMessage) check() error {
	if len(m.Digest) == 0 || len(m.Digest) > MaxDigest {
		return malformed("inventory: expected a digest of 1 to %d octets, got %d", MaxDigest, len(m.Digest))
	}
	return nil
}

func (InventoryWanted) check() error { return nil }
