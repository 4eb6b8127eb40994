package chips

import "sync"

// PCF8574 is an NXP PCF8574 (SCPS068K): eight outputs in an octet.
type PCF8574 struct {
	mu    sync.Mutex
	state byte
}

// NewPCF8574 returns outputs that are high, as after a loss of power.
func NewPCF8574() *PCF8574 { return &PCF8574{state: 0xff} }

// State is what the outputs are.
func (c *PCF8574) State() byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Tx implements Chip.
func (c *PCF8574) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 {
		c.state = w[len(w)-1]
	}
	for i := range r {
		r[i] = c.state
	}
	return nil
}
