package chips

// registers are of 8 bits, behind a pointer that goes on with each octet read.
type registers struct {
	pointer byte
	reg     [256]byte
	pairs   bool // of several octets written, each second is a register's number: Bosch's way
	onRead  func(reg byte)
	onWrite func(reg, v byte)
}

func (x *registers) tx(w, r []byte) {
	if len(w) > 0 {
		x.pointer = w[0]
	}
	switch {
	case x.pairs:
		for i := 0; i+1 < len(w); i += 2 {
			x.onWrite(w[i], w[i+1])
		}
	case len(w) > 1:
		for _, v := range w[1:] {
			x.onWrite(x.pointer, v)
			x.pointer++
		}
	}
	for i := range r {
		if x.onRead != nil {
			x.onRead(x.pointer)
		}
		r[i] = x.reg[x.pointer]
		x.pointer++
	}
}
