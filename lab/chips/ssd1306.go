package chips

import "sync"

// SSD1306 is a Solomon Systech SSD1306 (revision 1.1) with its panel.
type SSD1306 struct {
	mu           sync.Mutex
	memory       [8][128]byte
	on, all      bool
	inverse      bool
	pump         bool
	contrast     byte
	mode         byte
	first, last  [2]byte // column, page
	at           [2]byte
	left         int // octets that the command still has
	command      byte
	arguments    []byte
	flipX, flipY bool
	multiplex    byte
	startLine    byte
	unknown      []byte
}

// NewSSD1306 returns a display that is off, with noise in its memory.
func NewSSD1306() *SSD1306 {
	c := &SSD1306{}
	c.LosePower()
	return c
}

// LosePower lets the display forget settings and picture.
func (c *SSD1306) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on, c.all, c.inverse, c.pump, c.flipX, c.flipY = false, false, false, false, false, false
	c.contrast, c.mode, c.multiplex, c.startLine = 0x7f, 2, 63, 0
	c.first, c.last, c.at = [2]byte{}, [2]byte{127, 7}, [2]byte{}
	c.left, c.command, c.arguments = 0, 0, nil
	for p := range c.memory {
		for x := range c.memory[p] {
			c.memory[p][x] = byte(x*37 + p*11)
		}
	}
}

// Lit tells whether a dot of the panel is bright. (0, 0) is where text begins, on
// panels that are mounted as most are: with columns and rows turned round.
func (c *SSD1306) Lit(x, y int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on || !c.pump || y > int(c.multiplex) {
		return false
	}
	if c.all {
		return true
	}
	if !c.flipX {
		x = 127 - x
	}
	if !c.flipY {
		y = int(c.multiplex) - y
	}
	return (c.memory[y/8][x]>>(y%8)&1 != 0) != c.inverse
}

// Picture is what the panel shows, as lines of Braille patterns: each character is two dots
// wide and four high. A panel that is dark has blank ones.
func (c *SSD1306) Picture() []string {
	// Dots of a pattern from its upper left, and their bits (Unicode 15, 21.1).
	bits := [4][2]rune{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}
	c.mu.Lock()
	rows := int(c.multiplex) + 1
	c.mu.Unlock()
	var lines []string
	for top := 0; top < rows; top += len(bits) {
		var line []rune
		for left := 0; left < 128; left += 2 {
			pattern := rune(0x2800)
			for y, row := range bits {
				for x, bit := range row {
					if c.Lit(left+x, top+y) {
						pattern |= bit
					}
				}
			}
			line = append(line, pattern)
		}
		lines = append(lines, string(line))
	}
	return lines
}

// Unknown are commands that the model does not know.
func (c *SSD1306) Unknown() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.unknown...)
}

// Tx implements Chip.
func (c *SSD1306) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 0; i < len(w); {
		control := w[i] // 8.1.5.2
		i++
		n := len(w) - i
		if control&0x80 != 0 {
			n = min(1, n)
		}
		for _, b := range w[i : i+n] {
			if control&0x40 != 0 {
				c.data(b)
			} else {
				c.instruct(b)
			}
		}
		i += n
	}
	for i := range r {
		r[i] = 0x40 // 8.1.5.1: off
		if c.on {
			r[i] = 0
		}
	}
	return nil
}

// data writes a column of eight dots and goes on.
func (c *SSD1306) data(b byte) {
	c.memory[c.at[1]&7][c.at[0]&127] = b
	if c.at[0]++; c.at[0] <= c.last[0] {
		return
	}
	c.at[0] = c.first[0]
	if c.mode == 0 {
		if c.at[1]++; c.at[1] > c.last[1] {
			c.at[1] = c.first[1]
		}
	}
}

// length is how many octets follow a command (section 9).
func length(command byte) int {
	switch command {
	case 0x20, 0x81, 0x8d, 0xa8, 0xd3, 0xd5, 0xd9, 0xda, 0xdb:
		return 1
	case 0x21, 0x22:
		return 2
	}
	return 0
}

func (c *SSD1306) instruct(b byte) {
	if c.left == 0 {
		c.command, c.arguments, c.left = b, nil, length(b)
	} else {
		c.arguments = append(c.arguments, b)
		c.left--
	}
	if c.left == 0 {
		c.execute(c.command, c.arguments)
	}
}

func (c *SSD1306) execute(command byte, a []byte) {
	switch {
	case command <= 0x1f && c.mode != 2, command >= 0xb0 && command <= 0xb7 && c.mode != 2:
		// 10.1.1, 10.1.13: for page addressing only
	case command <= 0x0f:
		c.at[0] = c.at[0]&0x70 | command
	case command <= 0x1f:
		c.at[0] = c.at[0]&0x0f | command<<4&0x70
	case command >= 0xb0 && command <= 0xb7:
		c.at[1] = command & 7
	case command == 0x20:
		c.mode = a[0] & 3
	case command == 0x21, command == 0x22:
		i := int(command - 0x21)
		c.first[i], c.last[i], c.at[i] = a[0], a[1], a[0]
	case command == 0x81:
		c.contrast = a[0]
	case command == 0x8d:
		c.pump = a[0]&4 != 0
	case command == 0xa0, command == 0xa1:
		c.flipX = command == 0xa1
	case command == 0xa4, command == 0xa5:
		c.all = command == 0xa5
	case command == 0xa6, command == 0xa7:
		c.inverse = command == 0xa7
	case command == 0xa8:
		c.multiplex = a[0] & 63
	case command == 0xae, command == 0xaf:
		c.on = command == 0xaf
	case command == 0xc0, command == 0xc8:
		c.flipY = command == 0xc8
	case command >= 0x40 && command <= 0x7f:
		c.startLine = command & 63
	case command == 0x2e, command == 0xe3, length(command) > 0:
	default:
		c.unknown = append(c.unknown, command)
	}
}
