package chips

import "encoding/binary"

// words are registers of 16 bits, the most significant octet first, behind a
// pointer that stays where it was put: Texas Instruments' and Microchip's way.
type words struct {
	pointer byte
	// read and write are the chip's. A write of one octet is that of a register of
	// 8 bits, in its high octet.
	read  func(reg byte) uint16
	write func(reg byte, v uint16, octets int)
}

func (x *words) tx(w, r []byte) {
	if len(w) > 0 {
		x.pointer = w[0]
	}
	switch {
	case len(w) == 2:
		x.write(w[0], uint16(w[1])<<8, 1)
	case len(w) > 2:
		x.write(w[0], binary.BigEndian.Uint16(w[1:]), 2)
	}
	if len(r) == 0 {
		return
	}
	v := x.read(x.pointer)
	for i := range r {
		if i%2 == 1 {
			r[i] = byte(v)
		} else {
			r[i] = byte(v >> 8)
		}
	}
}
