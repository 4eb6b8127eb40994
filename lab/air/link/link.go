// Package link carries the medium of a virtual machine's simulated radios over a
// stream, to the air on the host: frames, deliveries and reports, and which
// radios the machine is to have; and what the host breaks in the machine: a driver
// that hangs, a process that dies. The host's end is a Remote, which takes part in
// an air.Air as the medium of a local machine would; the machine's end is Serve.
//
// Every message is a length (4 octets, big endian) and CBOR. The machine begins
// with a greeting of random octets. The host answers with these octets alone:
// what the machine reads before them is the rest of what was for a process that
// had the stream before, and is skipped.
package link

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/lab/air/hwsim"
)

// Port is the name of the virtio port that a machine finds the stream by.
const Port = "halo.air"

// kind of a message.
type kind uint8

const (
	hello   kind = iota + 1 // from the machine: Data is its greeting
	plugged                 // from the machine: it has the radio named Text
	frame                   // from the machine: Frame
	trouble                 // from the machine: Text
	welcome                 // to the machine: Data is its greeting; not framed
	deliver                 // to the machine: Address hears Data
	report                  // to the machine: what became of a Frame
	plug                    // to the machine: a radio named Text with Address
	unplug                  // to the machine: the radio named Text is gone
	wedge                   // to the machine: the driver of the radio named Text hangs
	freed                   // from the machine: that of the radio named Text does not hang any more
	kill                    // to the machine: its process named Text is to die
	killed                  // from the machine: it has
)

// message is what goes over the stream; what a kind has no use for is empty.
type message struct {
	_       struct{} `cbor:",toarray"`
	Kind    kind
	Address []byte // of the transmitter, receiver or new radio
	Data    []byte
	Text    string
	Flags   uint32
	Cookie  uint64
	FreqMHz int
	Rate    int
	Signal  int // dBm
	Acked   bool
	Plan    hwsim.Attempts
	Kinds   [len(hwsim.Attempts{})]hwsim.Kind
}

// maxMessage is beyond any frame with what goes along.
const maxMessage = 16 << 10

// greetingSize is so many octets that they are never met by chance.
const greetingSize = 16

func write(w io.Writer, m message) error {
	if m.Kind == welcome {
		_, err := w.Write(m.Data)
		return err
	}
	b, err := cbor.Marshal(m)
	if err != nil {
		return fmt.Errorf("air link: %w", err)
	}
	if len(b) > maxMessage {
		return fmt.Errorf("air link: expected a message of at most %d octets, got %d", maxMessage, len(b))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func read(r io.Reader) (m message, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return m, fmt.Errorf("air link: expected a message of at most %d octets, got %d", maxMessage, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return m, err
	}
	if err := cbor.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("air link: %w", err)
	}
	if m.Kind == hello && len(m.Data) != greetingSize {
		return m, fmt.Errorf("air link: greeting: expected %d octets, got %d", greetingSize, len(m.Data))
	}
	if m.Kind == frame && (len(m.Address) != 6 || len(m.Data) < 10) {
		return m, fmt.Errorf("air link: frame: expected a transmitter of 6 octets and at least 10 of frame, got %d and %d", len(m.Address), len(m.Data))
	}
	return m, nil
}
