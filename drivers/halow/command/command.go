// Package command speaks to Morse's firmware by the vendor commands of nl80211
// that morse_cli uses, so that an appliance needs neither that program nor a
// shell.
//
// Formats and numbers are those of Morse's driver at 4ce0a02 (morse_commands.h,
// version 57.13 of the interface; vendor.h, command.h). None of it has met a chip
// yet: tests hold it against the published structures alone. Older drivers know
// fewer commands and answer those with a status; that the answer carries the
// request's number, the published code does not promise for all of them.
package command

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"halo.internal/drivers/nl80211"
)

// Vendor commands, by Morse's OUI. Both carry the same messages.
var (
	ToInterface = nl80211.VendorID{OUI: 0x0cbf74, Subcommand: 0} // wants an interface that is up
	ToHardware  = nl80211.VendorID{OUI: 0x0cbf74, Subcommand: 1}
)

// ID is a command of the firmware, or of the driver from 0xA000.
type ID uint16

// Commands.
const (
	GetVersion     ID = 0x0002
	SetTxPower     ID = 0x0003
	HealthCheck    ID = 0x0019
	GetChannel     ID = 0x001d
	SetDutyCycle   ID = 0x0022
	GetDutyCycle   ID = 0x0023
	GetMaxTxPower  ID = 0x0024
	MACAddress     ID = 0x0029
	GetChannelUsed ID = 0x003b
)

const (
	headerSize = 12 // flags, id, length, host id, interface id, padding: 16 bits each
	statusSize = 4
	isRequest  = 1
	isResponse = 2
	mostData   = 2048 // of a vendor's request or response
)

// ErrAnswer is wrapped by errors about an answer that makes no sense.
var ErrAnswer = errors.New("the radio's answer makes no sense")

// StatusError is a refusal by the firmware or its driver.
type StatusError struct {
	Command ID
	Status  int32 // a negative errno, or -32757 for a command that it does not know
}

// Error gives the status in words where those are known.
func (e *StatusError) Error() string {
	word := ""
	switch e.Status {
	case -1:
		word = " (not permitted)"
	case -12:
		word = " (out of memory)"
	case -32757:
		word = " (this firmware does not know the command)"
	}
	return fmt.Sprintf("command 0x%04x of the radio: status %d%s", uint16(e.Command), e.Status, word)
}

// encode returns a request.
func encode(id ID, data []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(data))
	binary.LittleEndian.PutUint16(b[0:], isRequest)
	binary.LittleEndian.PutUint16(b[2:], uint16(id))
	binary.LittleEndian.PutUint16(b[4:], uint16(len(data)))
	return append(b, data...)
}

// decode returns what an answer carries behind its status.
func decode(id ID, b []byte) ([]byte, error) {
	if len(b) < headerSize+statusSize || len(b) > headerSize+statusSize+mostData {
		return nil, fmt.Errorf("%w: command 0x%04x: expected %d to %d octets, got %d", ErrAnswer, uint16(id), headerSize+statusSize, headerSize+statusSize+mostData, len(b))
	}
	if flags := binary.LittleEndian.Uint16(b[0:]); flags&isResponse == 0 {
		return nil, fmt.Errorf("%w: command 0x%04x: expected a response, got flags %#x", ErrAnswer, uint16(id), flags)
	}
	if got := ID(binary.LittleEndian.Uint16(b[2:])); got != id {
		return nil, fmt.Errorf("%w: expected that to command 0x%04x, got one to 0x%04x", ErrAnswer, uint16(id), uint16(got))
	}
	if status := int32(binary.LittleEndian.Uint32(b[headerSize:])); status != 0 {
		return nil, &StatusError{id, status}
	}
	return b[headerSize+statusSize:], nil
}

// Caller makes vendor's requests, as *nl80211.Conn does.
type Caller interface {
	Vendor(index int, id nl80211.VendorID, data []byte, nested bool) ([][]byte, error)
}

// Radio is a radio of Morse's by one of its interfaces, which is up.
type Radio struct {
	Conn  Caller
	Index int // of the interface
}

// call makes a request and returns at least want octets of its answer.
func (r Radio) call(id ID, data []byte, want int) ([]byte, error) {
	answers, err := r.Conn.Vendor(r.Index, ToInterface, encode(id, data), false)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, fmt.Errorf("%w: command 0x%04x: expected one answer, got %d", ErrAnswer, uint16(id), len(answers))
	}
	got, err := decode(id, answers[0])
	if err == nil && len(got) < want {
		err = fmt.Errorf("%w: command 0x%04x: expected at least %d octets, got %d", ErrAnswer, uint16(id), want, len(got))
	}
	return got, err
}

// Version returns the firmware's version, e.g. "rel_1_16_4_2025_Sep_18".
func (r Radio) Version() (string, error) {
	const most = 128
	b, err := r.call(GetVersion, nil, 4)
	if err != nil {
		return "", err
	}
	n := int64(int32(binary.LittleEndian.Uint32(b)))
	if n < 0 || n > most || n > int64(len(b)-4) {
		return "", fmt.Errorf("%w: a version of %d octets", ErrAnswer, n)
	}
	text, _, _ := bytes.Cut(b[4:4+n], []byte{0})
	for _, c := range text {
		if c < ' ' || c > '~' {
			return "", fmt.Errorf("%w: version %q", ErrAnswer, text)
		}
	}
	return string(text), nil
}

// Health asks the firmware whether it works; it answers if it does.
func (r Radio) Health() error {
	_, err := r.call(HealthCheck, nil, 0)
	return err
}

// Channel is where the radio is.
type Channel struct {
	CentreHz     int
	WidthMHz     int
	PrimaryMHz   int // width of the primary channel, 1 or 2
	PrimaryIndex int // of its 1 MHz channel, from below
}

// Channel returns where the radio is.
func (r Radio) Channel() (Channel, error) {
	b, err := r.call(GetChannel, nil, 7)
	if err != nil {
		return Channel{}, err
	}
	return Channel{int(binary.LittleEndian.Uint32(b)), int(b[4]), int(b[5]), int(b[6])}, nil
}

// Usage is how much of a time the radio found its channel busy.
type Usage struct {
	ListenUS, BusyUS uint64
	NoiseDBm         int
}

// Usage returns what the radio has found on its channel. The published driver
// gives its times no unit; microseconds are what others of its commands have.
func (r Radio) Usage() (Usage, error) {
	b, err := r.call(GetChannelUsed, nil, 22)
	if err != nil {
		return Usage{}, err
	}
	return Usage{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), int(int8(b[20]))}, nil
}

// MaxTxPower returns the most power that chip and calibration have, in
// hundredths of a dBm.
func (r Radio) MaxTxPower() (int, error) {
	b, err := r.call(GetMaxTxPower, nil, 4)
	if err != nil {
		return 0, err
	}
	return fromQuarters(b), nil
}

// SetTxPower sets the power, in hundredths of a dBm, rounded down to a quarter of
// a dB, and returns what the radio took.
func (r Radio) SetTxPower(mBm int) (int, error) {
	quarters := mBm / 25
	if mBm < 0 && mBm%25 != 0 {
		quarters--
	}
	b, err := r.call(SetTxPower, binary.LittleEndian.AppendUint32(nil, uint32(int32(quarters))), 4)
	if err != nil {
		return 0, err
	}
	return fromQuarters(b), nil
}

func fromQuarters(b []byte) int { return int(int32(binary.LittleEndian.Uint32(b))) * 25 }

// DutyCycle is how much of the time the firmware lets the radio send.
type DutyCycle struct {
	Hundredths    int  // of a percent: 10000 is always
	OmitResponses bool // acknowledgements do not count
}

// DutyCycle returns what the firmware keeps to.
func (r Radio) DutyCycle() (DutyCycle, error) {
	b, err := r.call(GetDutyCycle, nil, 5)
	if err != nil {
		return DutyCycle{}, err
	}
	d := DutyCycle{int(binary.LittleEndian.Uint32(b[1:])), b[0] != 0}
	if d.Hundredths < 1 || d.Hundredths > 10000 {
		return DutyCycle{}, fmt.Errorf("%w: a duty cycle of %d hundredths of a percent", ErrAnswer, d.Hundredths)
	}
	return d, nil
}

// SetDutyCycle has the firmware keep to a duty cycle, spread over the time.
func (r Radio) SetDutyCycle(d DutyCycle) error {
	if d.Hundredths < 1 || d.Hundredths > 10000 {
		return fmt.Errorf("duty cycle: expected 1 to 10000 hundredths of a percent, got %d", d.Hundredths)
	}
	const setCycle, setOmit = 1, 2
	omit := byte(0)
	if d.OmitResponses {
		omit = 1
	}
	b := binary.LittleEndian.AppendUint32([]byte{omit}, uint32(d.Hundredths))
	b = append(b, setCycle|setOmit)
	b = append(b, 0, 0, 0, 0, 0) // the extension: burst unit and mode, which are not set
	_, err := r.call(SetDutyCycle, b, 0)
	return err
}

// MAC returns the radio's address.
func (r Radio) MAC() ([]byte, error) {
	b, err := r.call(MACAddress, make([]byte, 7), 6) // write 0, no address
	if err != nil {
		return nil, err
	}
	return b[:6], nil
}
