package wire

// maxBoardParts bounds the parts of a kind; what they say is checked by who uses it.
const maxBoardParts = 256

func (m BoardMessage) check() error {
	b := m.Board
	pins := 0
	if b.Header != nil {
		pins = len(b.Header.Pins)
	}
	if n := max(pins, len(b.Models), len(b.I2C), len(b.Serial), len(b.Radios), len(b.LEDs), len(b.Buttons), len(b.Outputs), len(b.Inputs), len(b.Overlay)); n > maxBoardParts {
		return malformed("board: expected at most %d parts of a kind, got %d", maxBoardParts, n)
	}
	return nil
}

func (BoardWanted) check() error { return nil }
