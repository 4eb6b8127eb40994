package dot11

import "fmt"

// ElementID names an element (9.4.2.1). Extended elements, whose first octet
// after the length is a second identifier, are 0xff00 plus that.
type ElementID uint16

// Elements that HALO reads or writes.
const (
	SSID                   ElementID = 0
	SupportedRates         ElementID = 1
	RSN                    ElementID = 48
	ExtendedSupportedRates ElementID = 50
	MeshConfiguration      ElementID = 113
	MeshID                 ElementID = 114
	MeshPeeringManagement  ElementID = 117
	AMPE                   ElementID = 139
	MIC                    ElementID = 140
	VHTOperation           ElementID = 192

	PasswordIdentifier ElementID = extended<<8 | 33
	RejectedGroups     ElementID = extended<<8 | 92
	TokenContainer     ElementID = extended<<8 | 93
)

const (
	extended   = 255
	maxElement = 255 // octets of a body, the second identifier included
)

// Element is one of them; its body leaves out identifiers and length.
type Element struct {
	ID   ElementID
	Body []byte
}

// NextElement takes the first element off b. The body aliases b.
func NextElement(b []byte) (Element, []byte, error) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return Element{}, nil, fmt.Errorf("element: cut short at %d octets", len(b))
	}
	id, body, rest := ElementID(b[0]), b[2:2+int(b[1])], b[2+int(b[1]):]
	if id == extended {
		if len(body) == 0 {
			return Element{}, nil, fmt.Errorf("element %d: has no extended identifier", extended)
		}
		id, body = id<<8|ElementID(body[0]), body[1:]
	}
	return Element{id, body}, rest, nil
}

// AppendElement appends one to b. A body longer than an element holds is a
// mistake of the caller and panics.
func AppendElement(b []byte, id ElementID, body []byte) []byte {
	if id>>8 == extended {
		if len(body)+1 > maxElement {
			panic(fmt.Sprintf("dot11: element %d has %d octets", id, len(body)))
		}
		return append(append(b, extended, byte(len(body)+1), byte(id)), body...)
	}
	if len(body) > maxElement || id >= extended {
		panic(fmt.Sprintf("dot11: element %d has %d octets", id, len(body)))
	}
	return append(append(b, byte(id), byte(len(body))), body...)
}
