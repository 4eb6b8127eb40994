package command

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
)

// chip answers requests from a table, by what follows the header.
type chip struct {
	t       *testing.T
	asked   []byte // the last request
	answers [][]byte
	err     error
}

func (c *chip) Vendor(index int, id nl80211.VendorID, data []byte, nested bool) ([][]byte, error) {
	if index != 4 || id != ToInterface || nested {
		c.t.Errorf("asked on %d by %s, nested %v", index, id, nested)
	}
	c.asked = data
	return c.answers, c.err
}

// response is an answer with a status.
func response(id ID, status int32, data ...byte) []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint16(b, isResponse)
	binary.LittleEndian.PutUint16(b[2:], uint16(id))
	binary.LittleEndian.PutUint32(b[12:], uint32(status))
	return append(b, data...)
}

func TestCommands(t *testing.T) {
	c := &chip{t: t}
	r := Radio{c, 4}
	for name, tc := range map[string]struct {
		answer []byte
		do     func() (any, error)
		asked  string // hex
		want   any
	}{
		"version": {response(GetVersion, 0, append([]byte{9, 0, 0, 0}, "rel_1_16\x00"...)...), func() (any, error) { return r.Version() },
			"010002000000000000000000", "rel_1_16"},
		"health": {response(HealthCheck, 0), func() (any, error) { return nil, r.Health() }, "010019000000000000000000", nil},
		"channel": {response(GetChannel, 0, 0x00, 0x0d, 0x13, 0x37, 8, 2, 3), func() (any, error) { return r.Channel() },
			"01001d000000000000000000", Channel{0x37130d00, 8, 2, 3}},
		"usage": {response(GetChannelUsed, 0, 16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0xa0, 8), func() (any, error) { return r.Usage() },
			"01003b000000000000000000", Usage{16, 4, -96}},
		"most power": {response(GetMaxTxPower, 0, 88, 0, 0, 0), func() (any, error) { return r.MaxTxPower() },
			"010024000000000000000000", 2200},
		"power": {response(SetTxPower, 0, 64, 0, 0, 0), func() (any, error) { return r.SetTxPower(1613) },
			"01000300040000000000000040000000", 1600},
		"power below nothing": {response(SetTxPower, 0, 0xff, 0xff, 0xff, 0xff), func() (any, error) { return r.SetTxPower(-1) },
			"010003000400000000000000ffffffff", -25},
		"duty cycle": {response(GetDutyCycle, 0, 1, 0x18, 1, 0, 0, 9, 9, 9), func() (any, error) { return r.DutyCycle() },
			"010023000000000000000000", DutyCycle{280, true}},
		"set duty cycle": {response(SetDutyCycle, 0), func() (any, error) { return nil, r.SetDutyCycle(DutyCycle{280, true}) },
			"010022000b0000000000000001180100000300000000" + "00", nil},
		"address": {response(MACAddress, 0, 0x0c, 0xbf, 0x74, 1, 2, 3), func() (any, error) {
			b, err := r.MAC()
			return hex.EncodeToString(b), err
		}, "01002900070000000000000000000000000000", "0cbf74010203"},
	} {
		t.Run(name, func(t *testing.T) {
			c.answers = [][]byte{tc.answer}
			got, err := tc.do()
			if err != nil || got != tc.want {
				t.Errorf("got %v, %v, want %v", got, err, tc.want)
			}
			if asked := hex.EncodeToString(c.asked); asked != tc.asked {
				t.Errorf("asked %s, want %s", asked, tc.asked)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	c := &chip{t: t}
	r := Radio{c, 4}
	version := func() error { _, err := r.Version(); return err }
	duty := func() error { _, err := r.DutyCycle(); return err }
	for name, tc := range map[string]struct {
		answers [][]byte
		do      func() error
		want    string
	}{
		"none":               {nil, version, "expected one answer, got 0"},
		"short":              {[][]byte{make([]byte, 15)}, version, "expected 16 to 2064 octets, got 15"},
		"endless":            {[][]byte{make([]byte, 4000)}, version, "got 4000"},
		"a request":          {[][]byte{encode(GetVersion, make([]byte, 8))}, version, "expected a response"},
		"to another command": {[][]byte{response(GetChannel, 0, 1, 2, 3, 4)}, version, "got one to 0x001d"},
		"longer than it is":  {[][]byte{response(GetVersion, 0, 9, 0, 0, 0, 'r')}, version, "a version of 9 octets"},
		"shorter than empty": {[][]byte{response(GetVersion, 0, 0xff, 0xff, 0xff, 0xff)}, version, "a version of -1 octets"},
		"no text":            {[][]byte{response(GetVersion, 0, 1, 0, 0, 0, 7)}, version, `version "\a"`},
		"cut":                {[][]byte{response(GetDutyCycle, 0, 1, 2)}, duty, "at least 5 octets, got 2"},
		"no duty cycle":      {[][]byte{response(GetDutyCycle, 0, 1, 0, 0, 0, 0)}, duty, "a duty cycle of 0"},
		"more than always":   {nil, func() error { return r.SetDutyCycle(DutyCycle{Hundredths: 10001}) }, "got 10001"},
	} {
		t.Run(name, func(t *testing.T) {
			c.answers = tc.answers
			if err := tc.do(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	c.answers = [][]byte{response(HealthCheck, -32757)}
	err := r.Health()
	if s, ok := errors.AsType[*StatusError](err); !ok || s.Status != -32757 || !strings.Contains(err.Error(), "does not know the command") {
		t.Errorf("status: %v", err)
	}
	c.answers, c.err = nil, unix.ETIMEDOUT
	if err := r.Health(); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("a radio that hangs: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(response(GetVersion, 0, 1, 0, 0, 0, 'r'))
	f.Add(response(GetVersion, -1))
	f.Add([]byte{2, 0, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &chip{t: t, answers: [][]byte{b}}
		r := Radio{c, 4}
		if v, err := r.Version(); err == nil && (len(v) > 128 || !bytes.Contains(b, []byte(v))) {
			t.Errorf("version %q of %x", v, b)
		}
		for _, do := range []func() error{
			r.Health,
			func() error { _, err := r.Channel(); return err },
			func() error { _, err := r.Usage(); return err },
			func() error { _, err := r.DutyCycle(); return err },
			func() error { _, err := r.MaxTxPower(); return err },
			func() error { _, err := r.MAC(); return err },
		} {
			_ = do()
		}
	})
}
