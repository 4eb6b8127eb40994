package sae

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"halo.internal/model/dot11"
)

// Authentication frames of SAE (9.3.3.11, 9.4.1): algorithm, transaction,
// status, then what the kind asks for.
const (
	algorithm          = 3
	transactionCommit  = 1
	transactionConfirm = 2
	fixedSize          = 6

	maxToken      = 254 // what the container of H2E holds
	maxIdentifier = 254
	maxGroups     = 32 // rejected groups that are taken from a peer
)

// Method is how the password element is found.
type Method int

// Methods. A mesh uses one of them; a Commit of the other is refused.
const (
	HashToElement     Method = iota // status 126
	HuntingAndPecking               // status 0, for interoperation with wpa_supplicant 2.10
)

// String names the method.
func (m Method) String() string {
	if m == HuntingAndPecking {
		return "hunting and pecking"
	}
	return "hash to element"
}

func (m Method) status() dot11.Status {
	if m == HuntingAndPecking {
		return dot11.Success
	}
	return dot11.SAEHashToElement
}

// commitFrame is a Commit with values.
type commitFrame struct {
	method     Method
	values     values
	token      []byte // nil: none
	identifier []byte // nil: none
	rejected   []byte // group numbers, two octets each; nil: none
}

// demand is a Commit without values: the peer wants a token, or refuses.
type demand struct {
	status dot11.Status
	group  uint16
	token  []byte
}

type confirmFrame struct {
	counter uint16 // send-confirm
	confirm [confirmSize]byte
}

// refusal is a Confirm with a status and nothing else, as wpa_supplicant answers
// a Confirm that does not verify.
type refusal struct {
	status dot11.Status
}

var (
	errForeign = errors.New("not an SAE frame")
	errGroup   = errors.New("group is not 19")
)

// groupError is a Commit over a group that is not spoken.
type groupError struct{ group uint16 }

func (e groupError) Error() string { return fmt.Sprintf("group: expected %d, got %d", Group, e.group) }
func (e groupError) Unwrap() error { return errGroup }

// parse reads the body of an Authentication frame: one of commitFrame, demand,
// confirmFrame and refusal. Slices alias b.
func parse(b []byte) (any, error) {
	if len(b) < fixedSize || binary.LittleEndian.Uint16(b) != algorithm {
		return nil, errForeign
	}
	status := dot11.Status(binary.LittleEndian.Uint16(b[4:]))
	switch transaction, body := binary.LittleEndian.Uint16(b[2:]), b[fixedSize:]; transaction {
	case transactionCommit:
		switch status {
		case dot11.Success:
			return parseCommit(HuntingAndPecking, body)
		case dot11.SAEHashToElement:
			return parseCommit(HashToElement, body)
		}
		return parseDemand(status, body)
	case transactionConfirm:
		if status != dot11.Success {
			return refusal{status}, nil
		}
		if len(body) != 2+confirmSize {
			return nil, fmt.Errorf("confirm: expected %d octets, got %d", 2+confirmSize, len(body))
		}
		return confirmFrame{binary.LittleEndian.Uint16(body), [confirmSize]byte(body[2:])}, nil
	default:
		return nil, fmt.Errorf("transaction: expected %d or %d, got %d", transactionCommit, transactionConfirm, transaction)
	}
}

func parseCommit(m Method, b []byte) (commitFrame, error) {
	f := commitFrame{method: m}
	if len(b) < 2 {
		return f, fmt.Errorf("commit: cut short at %d octets", len(b))
	}
	if group := binary.LittleEndian.Uint16(b); group != Group {
		return f, groupError{group}
	}
	b = b[2:]
	if len(b) < scalarSize+elementSize {
		return f, fmt.Errorf("commit: expected at least %d octets, got %d", scalarSize+elementSize, len(b))
	}
	if m == HuntingAndPecking {
		// The token has no length of its own: it is what the rest does not need.
		// Elements cannot follow, since this side never names an identifier.
		if n := len(b) - scalarSize - elementSize; n > 0 {
			if n > maxToken {
				return f, fmt.Errorf("token: expected at most %d octets, got %d", maxToken, n)
			}
			f.token, b = b[:n], b[n:]
		}
	}
	f.values = values{[scalarSize]byte(b), [elementSize]byte(b[scalarSize:])}
	for b = b[scalarSize+elementSize:]; len(b) > 0; {
		e, rest, err := dot11.NextElement(b)
		if err != nil {
			return f, fmt.Errorf("commit: %w", err)
		}
		b = rest
		for _, known := range []struct {
			id  dot11.ElementID
			out *[]byte
		}{
			{dot11.TokenContainer, &f.token},
			{dot11.PasswordIdentifier, &f.identifier},
			{dot11.RejectedGroups, &f.rejected},
		} {
			if e.ID != known.id {
				continue
			}
			if *known.out != nil || len(e.Body) == 0 {
				return f, fmt.Errorf("commit: element %d comes twice or empty", e.ID)
			}
			*known.out = e.Body
		}
	}
	return f, checkRejected(f.rejected)
}

// checkRejected refuses a list that names our group: the peer was told lies by
// somebody between, or tells them.
func checkRejected(list []byte) error {
	if len(list)%2 != 0 || len(list) > 2*maxGroups {
		return fmt.Errorf("rejected groups: expected up to %d of two octets, got %d octets", maxGroups, len(list))
	}
	for ; len(list) > 0; list = list[2:] {
		if binary.LittleEndian.Uint16(list) == Group {
			return fmt.Errorf("rejected groups: names %d, which was never rejected", Group)
		}
	}
	return nil
}

func parseDemand(status dot11.Status, b []byte) (demand, error) {
	d := demand{status: status}
	if len(b) >= 2 {
		d.group = binary.LittleEndian.Uint16(b)
	}
	if status != dot11.AntiCloggingTokenRequired {
		return d, nil
	}
	if len(b) < 2 {
		return d, fmt.Errorf("token: cut short at %d octets", len(b))
	}
	if d.group != Group {
		return d, groupError{d.group}
	}
	// With H2E the token is in a container, which a raw token of hunting and
	// pecking could look like: the receiver knows its own method.
	d.token = b[2:]
	if len(d.token) == 0 || len(d.token) > maxToken+3 {
		return d, fmt.Errorf("token: expected up to %d octets, got %d", maxToken, len(d.token))
	}
	return d, nil
}

// tokenFor returns a demand's token as the method carries it.
func (d demand) tokenFor(m Method) ([]byte, error) {
	if m == HuntingAndPecking {
		if len(d.token) > maxToken {
			return nil, fmt.Errorf("token: expected up to %d octets, got %d", maxToken, len(d.token))
		}
		return bytes.Clone(d.token), nil
	}
	e, _, err := dot11.NextElement(d.token)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if e.ID != dot11.TokenContainer || len(e.Body) == 0 {
		return nil, fmt.Errorf("token: expected a container, got element %d of %d octets", e.ID, len(e.Body))
	}
	return bytes.Clone(e.Body), nil
}

func start(transaction uint16, status dot11.Status) []byte {
	b := make([]byte, 0, 256)
	b = binary.LittleEndian.AppendUint16(b, algorithm)
	b = binary.LittleEndian.AppendUint16(b, transaction)
	return binary.LittleEndian.AppendUint16(b, uint16(status))
}

// append returns the body of the frame. The order of elements is that of
// table 9-42.
func (f commitFrame) append() []byte {
	b := start(transactionCommit, f.method.status())
	b = binary.LittleEndian.AppendUint16(b, Group)
	if f.method == HuntingAndPecking {
		b = append(b, f.token...)
	}
	b = append(b, f.values.scalar[:]...)
	b = append(b, f.values.element[:]...)
	if f.method == HuntingAndPecking {
		return b
	}
	if f.identifier != nil {
		b = dot11.AppendElement(b, dot11.PasswordIdentifier, f.identifier)
	}
	if f.rejected != nil {
		b = dot11.AppendElement(b, dot11.RejectedGroups, f.rejected)
	}
	if f.token != nil {
		b = dot11.AppendElement(b, dot11.TokenContainer, f.token)
	}
	return b
}

// appendFor returns the body of the demand in the method's form.
func (d demand) appendFor(m Method) []byte {
	b := start(transactionCommit, d.status)
	b = binary.LittleEndian.AppendUint16(b, d.group)
	if d.status != dot11.AntiCloggingTokenRequired {
		return b
	}
	if m == HuntingAndPecking {
		return append(b, d.token...)
	}
	return dot11.AppendElement(b, dot11.TokenContainer, d.token)
}

func (f confirmFrame) append() []byte {
	b := start(transactionConfirm, dot11.Success)
	b = binary.LittleEndian.AppendUint16(b, f.counter)
	return append(b, f.confirm[:]...)
}
