//go:build !lab

package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func attribute(kind uint16, v []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(v)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), v...)
	return append(b, make([]byte, -len(b)&3)...)
}

func message(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...)
}

// told is a part of the kernel's answer about an interface with these peers.
func told(peers ...[]byte) []byte {
	body := []byte{cmdGetDevice, 1, 0, 0}
	body = append(body, attribute(deviceName, []byte("wg0\x00"))...)
	var list []byte
	for _, p := range peers {
		list = append(list, attribute(unix.NLA_F_NESTED, p)...)
	}
	return message(28, append(body, attribute(devicePeers|unix.NLA_F_NESTED, list)...))
}

func peerOf(key byte, at time.Time) []byte {
	b := attribute(peerKey, bytes.Repeat([]byte{key}, 32))
	b = append(b, attribute(2, make([]byte, 32))...) // the preshared key
	when := make([]byte, 16)
	if !at.IsZero() {
		binary.NativeEndian.PutUint64(when, uint64(at.Unix()))
		binary.NativeEndian.PutUint64(when[8:], uint64(at.Nanosecond()))
	}
	return append(b, attribute(peerHandshake, when)...)
}

func ends(code int32) []byte {
	return message(unix.NLMSG_DONE, binary.NativeEndian.AppendUint32(nil, uint32(code)))
}

func TestHandshakesAreReadFromTheKernelsAnswer(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 5, time.UTC)
	one := shake{[32]byte(bytes.Repeat([]byte{1}, 32)), at}
	three := shake{[32]byte(bytes.Repeat([]byte{3}, 32)), at.Add(time.Hour)}
	rest := attribute(peerKey, bytes.Repeat([]byte{1}, 32)) // the first peer's other addresses
	for name, tc := range map[string]struct {
		answer []byte
		want   []shake
		done   bool
		err    error
	}{
		"a part":             {told(peerOf(1, at), peerOf(2, time.Time{})), []shake{one}, false, nil},
		"the rest":           {append(told(rest, peerOf(3, at.Add(time.Hour))), ends(0)...), []shake{three}, true, nil},
		"none":               {append(told(), ends(0)...), nil, true, nil},
		"it is gone":         {message(unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENODEV)+1)), nil, true, unix.ENODEV},
		"it goes on its way": {ends(-int32(unix.EINTR)), nil, true, unix.EINTR},
	} {
		t.Run(name, func(t *testing.T) {
			got, done, err := parseShakes(tc.answer)
			if !slices.Equal(got, tc.want) || done != tc.done || !errors.Is(err, tc.err) {
				t.Errorf("got %v, %v, %v, want %v, %v, %v", got, done, err, tc.want, tc.done, tc.err)
			}
		})
	}
	whole := told(peerOf(1, at))
	for n := 1; n < len(whole); n++ {
		if list, _, err := parseShakes(whole[:n]); err == nil {
			t.Errorf("of %d octets of %d: %v, want an error", n, len(whole), list)
		}
	}
}

func FuzzParseShakes(f *testing.F) {
	f.Add(append(told(peerOf(1, time.Unix(1, 2)), peerOf(2, time.Time{})), ends(0)...))
	f.Add(message(unix.NLMSG_ERROR, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, _, _ := parseShakes(b); len(list) > len(b)/50 {
			t.Fatalf("%d handshakes in %d octets", len(list), len(b))
		}
	})
}
