// Package uevent hears what the kernel says about devices: which came, which
// went, which block of the root is rotten.
package uevent

import (
	"bytes"
	"fmt"
	"strings"
)

// Event is one message: the variables of an "action@path" record.
type Event map[string]string

// Action is add, remove, change, …
func (e Event) Action() string { return e["ACTION"] }

// Modalias is what the device asks modules for; empty for most events.
func (e Event) Modalias() string { return e["MODALIAS"] }

// Parse reads a message as the kernel multicasts it: a header and variables,
// each ended by NUL. Messages that udev repeats are not accepted.
func Parse(b []byte) (Event, error) {
	fields := bytes.Split(bytes.TrimSuffix(b, []byte{0}), []byte{0})
	if !bytes.Contains(fields[0], []byte("@/")) {
		return nil, fmt.Errorf("uevent: expected action@path, got %.40q", fields[0])
	}
	e := Event{}
	for _, f := range fields[1:] {
		if k, v, ok := strings.Cut(string(f), "="); ok {
			e[k] = v
		}
	}
	if e.Action() == "" {
		return nil, fmt.Errorf("uevent: expected ACTION in %.40q", fields[0])
	}
	return e, nil
}
