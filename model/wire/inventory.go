package wire

// MaxDigest bounds the digest of an inventory.
const MaxDigest = 64

func (m InventoryMessage) check() error {
	if len(m.Digest) == 0 || len(m.Digest) > MaxDigest {
		return malformed("inventory: expected a digest of 1 to %d octets, got %d", MaxDigest, len(m.Digest))
	}
	if err := m.Inventory.Check(); err != nil {
		return malformed("inventory: %v", err)
	}
	return nil
}

func (InventoryWanted) check() error { return nil }
