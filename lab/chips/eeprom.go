package chips

import "sync"

// EEPROM is a memory of 256 octets (24C02). One of a single octet of address takes
// whatever follows for what is to be stored.
type EEPROM struct {
	mu sync.Mutex
	registers
}

// NewEEPROM returns an empty memory.
func NewEEPROM() *EEPROM {
	c := &EEPROM{}
	for i := range c.reg {
		c.reg[i] = 0xff
	}
	c.onWrite = func(reg, v byte) { c.reg[reg] = v }
	return c
}

// Tx implements Chip.
func (c *EEPROM) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}
