package hwsim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// Flags of a frame on its way out.
const (
	WantStatus = 1 // the driver waits for a report
	NoAck      = 2 // nobody will acknowledge it
	acked      = 4
)

// Attempt is a rate of the driver's table and how often it is, or was, tried.
type Attempt struct {
	Rate  int8 // index into the band's rates, or an MCS; -1 is unused
	Count uint8
}

// Attempts is the driver's plan for a frame, and its result.
type Attempts [4]Attempt

// Frame is a frame that a radio sends.
type Frame struct {
	Transmitter net.HardwareAddr // the radio's own address, see Address
	Data        []byte           // 802.11, without FCS
	Flags       uint32
	Cookie      uint64
	FreqMHz     int
	Plan        Attempts
	Kinds       [4]Kind // of the attempts' rates
}

// Kind says what the number of a rate is.
type Kind int

// Kinds of rates.
const (
	Legacy Kind = iota // index into the band's rates
	HT                 // MCS, 8 for each further stream
	VHT                // MCS in the lower four bits, streams less one above
)

// Address returns the address by which the driver names the radio of a wiphy
// with that permanent address, as radios have that are loaded with the module or
// made without a MAC: 02:… is known as 42:…. With Radio.MAC both are the same.
func Address(permanent net.HardwareAddr) net.HardwareAddr {
	a := append(net.HardwareAddr(nil), permanent...)
	a[0] |= 0x40
	return a
}

// Medium is what is between the radios of a network namespace. Next is for one
// goroutine; the other methods may be called from any.
type Medium struct {
	conn *genetlink.Conn
	fam  genetlink.Family
}

// OpenMedium takes the place of the driver's own medium until Close. The error
// wraps unix.EBUSY where there is one already, and unix.EOPNOTSUPP where a radio
// uses several channels at once.
func OpenMedium(ns int) (*Medium, error) {
	c, err := Dial(ns)
	if err != nil {
		return nil, err
	}
	if err := c.do(cmdRegister, netlink.NewAttributeEncoder()); err != nil {
		return nil, errors.Join(fmt.Errorf("hwsim: register as the medium: %w", err), c.Close())
	}
	if err := c.conn.SetReadBuffer(4 << 20); err != nil {
		return nil, errors.Join(fmt.Errorf("hwsim: %w", err), c.Close())
	}
	return &Medium{c.conn, c.fam}, nil
}

// Close gives the medium back to the driver.
func (m *Medium) Close() error { return m.conn.Close() }

// Next returns the next frame that a radio sends. The error wraps unix.ENOBUFS
// when frames were lost, which the radios take for silence; it is safe to go on.
func (m *Medium) Next() (Frame, error) {
	for {
		generic, raw, err := m.conn.Receive()
		if err != nil {
			if op, ok := errors.AsType[*netlink.OpError](err); ok && op.Sequence != 0 {
				continue // a frame that was for nobody any more
			}
			return Frame{}, fmt.Errorf("hwsim: medium: %w", err)
		}
		for i, h := range raw {
			if h.Header.Type == netlink.HeaderType(m.fam.ID) && generic[i].Header.Command == cmdFrame {
				return parseFrame(generic[i].Data)
			}
		}
	}
}

// Flags of a rate.
const (
	rateIsHT  = 1 << 3
	rateIsVHT = 1 << 8
)

func parseFrame(b []byte) (f Frame, err error) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return f, fmt.Errorf("hwsim: frame: %w", err)
	}
	for d.Next() {
		switch d.Type() {
		case attrTransmitter:
			f.Transmitter = append(f.Transmitter, d.Bytes()...)
		case attrFrame:
			f.Data = append(f.Data, d.Bytes()...)
		case attrFlags:
			f.Flags = d.Uint32()
		case attrCookie:
			f.Cookie = d.Uint64()
		case attrFreq:
			f.FreqMHz = int(d.Uint32())
		case attrTxInfo:
			d.Do(f.Plan.decode)
		case txInfoFlags:
			d.Do(f.decodeKinds)
		}
	}
	if err := d.Err(); err != nil {
		return f, fmt.Errorf("hwsim: frame: %w", err)
	}
	if len(f.Transmitter) != 6 || len(f.Data) < 10 {
		return f, fmt.Errorf("hwsim: frame: expected a transmitter of 6 octets and at least 10 of frame, got %d and %d", len(f.Transmitter), len(f.Data))
	}
	return f, nil
}

const txInfoFlags = 21

// decodeKinds reads, for each attempt, its rate's number again and 16 bits of
// flags.
func (f *Frame) decodeKinds(b []byte) error {
	for i := 0; i+3 <= len(b) && i/3 < len(f.Kinds); i += 3 {
		switch flags := binary.NativeEndian.Uint16(b[i+1:]); {
		case flags&rateIsVHT != 0:
			f.Kinds[i/3] = VHT
		case flags&rateIsHT != 0:
			f.Kinds[i/3] = HT
		}
	}
	return nil
}

func (a *Attempts) decode(b []byte) error {
	if len(b) != 2*len(a) {
		return fmt.Errorf("attempts: expected %d octets, got %d", 2*len(a), len(b))
	}
	for i := range a {
		a[i] = Attempt{int8(b[2*i]), b[2*i+1]}
	}
	return nil
}

func (a Attempts) encode() []byte {
	var b []byte
	for _, t := range a {
		b = append(b, byte(t.Rate), t.Count)
	}
	return b
}

// Deliver lets a radio hear a frame.
func (m *Medium) Deliver(receiver net.HardwareAddr, data []byte, rate, signalDBm, freqMHz int) error {
	e := netlink.NewAttributeEncoder()
	e.Bytes(attrReceiver, receiver)
	e.Bytes(attrFrame, data)
	e.Uint32(attrRxRate, uint32(rate))
	e.Uint32(attrSignal, uint32(int32(signalDBm)))
	e.Uint32(attrFreq, uint32(freqMHz))
	return m.send(cmdFrame, e)
}

// Report tells a radio what became of its frame: each must be reported, or the
// driver stops sending.
func (m *Medium) Report(f Frame, ack bool, signalDBm int, did Attempts) error {
	flags := f.Flags
	if ack {
		flags |= acked
	}
	e := netlink.NewAttributeEncoder()
	e.Bytes(attrTransmitter, f.Transmitter)
	e.Uint32(attrFlags, flags)
	e.Uint64(attrCookie, f.Cookie)
	e.Uint32(attrSignal, uint32(int32(signalDBm)))
	e.Bytes(attrTxInfo, did.encode())
	return m.send(cmdTxInfo, e)
}

// send does not wait for an answer: errors, of radios that are gone, come to
// Next, which passes them over.
func (m *Medium) send(command uint8, e *netlink.AttributeEncoder) error {
	b, err := e.Encode()
	if err != nil {
		return fmt.Errorf("hwsim: medium: %w", err)
	}
	if _, err := m.conn.Send(genetlink.Message{Header: genetlink.Header{Command: command, Version: m.fam.Version}, Data: b}, m.fam.ID, netlink.Request); err != nil {
		return fmt.Errorf("hwsim: medium: %w", err)
	}
	return nil
}
