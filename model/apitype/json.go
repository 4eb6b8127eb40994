package apitype

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"strconv"
	"time"
)

// What is asked for all the time and is long is not written by encoding/json, but as that
// writes it, to the octet.

// errNumber is that of a number that JSON does not have.
var errNumber = errors.New("a number is not finite")

func appendText(b []byte, s string) ([]byte, error) {
	if !plain(s) {
		text, err := json.Marshal(s)
		return append(b, text...), err
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), nil
}

// plain tells of text that JSON has as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// appendTime appends an instant in quotes.
func appendTime(b []byte, t time.Time) (_ []byte, err error) {
	if b, err = t.AppendText(append(b, '"')); err != nil {
		return nil, err
	}
	return append(b, '"'), nil
}

// appendAddr appends an address in quotes.
func appendAddr(b []byte, a netip.Addr) (_ []byte, err error) {
	if a.Zone() != "" { // which is any text
		return appendText(b, a.String())
	}
	if b, err = a.AppendText(append(b, '"')); err != nil {
		return nil, err
	}
	return append(b, '"'), nil
}

// appendNumber writes a number as ECMAScript does, and encoding/json with it.
func appendNumber(b []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, errNumber
	}
	if a := math.Abs(f); a == 0 || a >= 1e-6 && a < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64), nil
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' { // e-09 is e-9
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b, nil
}
