package webcam

import (
	"encoding/binary"
	"unicode/utf16"
)

// Kinds of descriptors: USB 2.0, table 9-5, and UVC 1.1, table A-4.
const (
	descDevice        = 1
	descConfiguration = 2
	descString        = 3
	descInterface     = 4
	descEndpoint      = 5
	descAssociation   = 11
	descCSInterface   = 0x24
)

const (
	classVideo   = 0x0e
	subControl   = 1
	subStreaming = 2
	subGroup     = 3
)

// desc is a descriptor: its length goes before it.
func desc(b ...byte) []byte { return append([]byte{byte(len(b) + 1)}, b...) }

func le16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// descriptor returns one by its kind and number; nil: there is none.
func (c *Camera) descriptor(kind, index byte) []byte {
	switch kind {
	case descDevice:
		return desc(join([]byte{descDevice}, le16(0x0200), []byte{0xef, 2, 1, 64}, le16(VendorID), le16(ProductID), le16(0x0100), []byte{1, 2, 3, 1})...)
	case descConfiguration:
		return c.configuration()
	case descString:
		switch index {
		case 0:
			return desc(descString, 0x09, 0x04) // English
		case 1:
			return text("HALO")
		case 2:
			return text(Name)
		case 3:
			return text("lab")
		}
	}
	return nil
}

func text(s string) []byte {
	b := []byte{descString}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, le16(u)...)
	}
	return desc(b...)
}

func (c *Camera) configuration() []byte {
	// What the camera consists of: a lens, a processing unit with brightness, the bus.
	camera := desc(join([]byte{descCSInterface, 2, 1}, le16(0x0201), []byte{0, 0}, le16(0), le16(0), le16(0), []byte{3, 0, 0, 0})...)
	unit := desc(join([]byte{descCSInterface, 5, unitProcessing, 1}, le16(0), []byte{2, 1, 0, 0, 0})...)
	output := desc(join([]byte{descCSInterface, 3, 3}, le16(0x0101), []byte{0, unitProcessing, 0})...)
	units := join(camera, unit, output)
	const headerLen = 13
	header := desc(join([]byte{descCSInterface, 1}, le16(0x0110), le16(uint16(headerLen+len(units))), le32(48_000_000), []byte{1, 1})...)
	control := join(desc(descInterface, 0, 0, 0, classVideo, subControl, 0, 2), header, units)

	var formats []byte
	for i, s := range c.Sizes {
		pixels := uint32(s.Width) * uint32(s.Height)
		formats = append(formats, desc(join([]byte{descCSInterface, 7, byte(i + 1), 0}, le16(s.Width), le16(s.Height), le32(pixels), le32(pixels*100), le32(pixels*2), le32(s.Interval), []byte{1}, le32(s.Interval))...)...)
	}
	formats = append(desc(descCSInterface, 6, 1, byte(len(c.Sizes)), 0, 1, 0, 0, 0, 0), formats...)
	formats = append(formats, desc(descCSInterface, 13, 1, 1, 4)...)
	input := desc(join([]byte{descCSInterface, 1, 1}, le16(uint16(14+len(formats))), []byte{endpointIn, 0, 3, 0, 0, 0, 1, 0})...)
	stream := join(desc(descInterface, 1, 0, 1, classVideo, subStreaming, 0, 0), input, formats, desc(join([]byte{descEndpoint, endpointIn, 2}, le16(packet), []byte{0})...))

	all := join(desc(descAssociation, 0, 2, classVideo, subGroup, 0, 2), control, stream)
	return append(desc(join([]byte{descConfiguration}, le16(uint16(9+len(all))), []byte{2, 1, 0, 0x80, 50})...), all...)
}
