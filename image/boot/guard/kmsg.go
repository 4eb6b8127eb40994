package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// record is one message of /dev/kmsg.
type record struct {
	level int // 0 (emergency) to 7 (debug)
	user  bool
	usec  int64
	text  string
}

// parseRecord reads "6,339,5140900,-;message\n KEY=value\n".
func parseRecord(b []byte) (record, error) {
	head, text, ok := bytes.Cut(b, []byte{';'})
	fields := strings.Split(string(head), ",")
	if !ok || len(fields) < 3 {
		return record{}, fmt.Errorf("kernel message: expected priority,sequence,time,flags;text, got %.40q", b)
	}
	prio, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil {
		return record{}, fmt.Errorf("kernel message: priority: %w", err)
	}
	usec, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return record{}, fmt.Errorf("kernel message: time: %w", err)
	}
	text, _, _ = bytes.Cut(text, []byte{'\n'})
	return record{level: int(prio & 7), user: prio>>3 != 0, usec: usec, text: string(text)}, nil
}

// String is the form of dmesg.
func (r record) String() string {
	return fmt.Sprintf("<%d>[%5d.%06d] %s", r.level, r.usec/1e6, r.usec%1e6, r.text)
}

// fall matches how an arm64 kernel begins to fall, after which it goes on only
// by luck, if at all: a fault of its own (arch/arm64/mm/fault.c), a failed BUG_ON
// (lib/bug.c), what die makes of both (arch/arm64/kernel/traps.c), a panic. What
// begins with "BUG:" does not count: lockups of a busy machine, sleeping where
// that is forbidden, damaged pages of a process. The kernel says it and goes on,
// and a lockup that lasts starves the watchdog.
var fall = regexp.MustCompile(`^(Unable to handle kernel .+ at virtual address [0-9a-f]+|kernel BUG at .+!|Internal error: .+\[#[0-9]+\]|Kernel panic - not syncing)`)

// falls tells whether a message is the beginning of the kernel's fall. Programs
// cannot forge it, the kernel marks what comes from them.
func (r record) falls() bool { return !r.user && fall.MatchString(r.text) }

// messages reads all messages up to the newest from an open, non-blocking
// /dev/kmsg, and returns the last max octets of them.
func messages(kmsg io.Reader, max int) ([]byte, error) {
	var out []byte
	b := make([]byte, 8<<10) // one message each read, and no message is larger
	for {
		n, err := kmsg.Read(b)
		switch {
		case errors.Is(err, errAgain):
			return tail(out, max), nil
		case errors.Is(err, errOverrun):
			continue // the next read goes on with the oldest that is left
		case err != nil:
			return tail(out, max), err
		}
		if r, err := parseRecord(b[:n]); err == nil {
			out = append(append(out, r.String()...), '\n')
		}
		if len(out) > 4*max {
			out = append(out[:0], tail(out, max)...)
		}
	}
}

// tail returns the last whole lines of at most max octets.
func tail(b []byte, max int) []byte {
	if len(b) <= max {
		return b
	}
	b = b[len(b)-max:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[i+1:]
	}
	return b
}

// cause returns the first line of a log that speaks of the fall.
func cause(log []byte) string {
	last := ""
	for line := range strings.Lines(string(log)) {
		_, text, ok := strings.Cut(line, "] ")
		if !ok {
			text = line
		}
		text = strings.TrimSpace(text)
		if (record{text: text}).falls() {
			return text
		}
		if text != "" {
			last = text
		}
	}
	return last
}
