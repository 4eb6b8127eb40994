package support

import (
	"bytes"
	"fmt"
	"sync"
)

// Bounds of what is kept of a log.
const (
	maxLog  = 128 << 10 // octets, newlines included
	maxLine = 16 << 10
)

// Lines keeps the last lines that were written to it, in memory. The zero value is
// ready, and its methods may be called from any goroutine. A line too long is left out
// whole: half a secret would not be found by who looks for it.
type Lines struct {
	mu   sync.Mutex // guards what follows
	kept [][]byte   // each with its newline
	size int
}

// Write takes one or more whole lines, as slog's handlers write them. It never fails.
func (l *Lines) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if len(line) > maxLine {
			line = fmt.Appendf(nil, "[a line of %d octets is left out]\n", len(line))
		}
		l.add(line)
	}
	return len(b), nil
}

func (l *Lines) add(line []byte) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	own := append(make([]byte, 0, len(line)+1), line...) // whose buffer it is, writes the next there
	own = append(own, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, own)
	l.size += len(own)
	over := 0
	for ; l.size > maxLog; over++ {
		l.size -= len(l.kept[over])
		l.kept[over] = nil
	}
	l.kept = l.kept[over:]
}

// Bytes returns all that is kept.
func (l *Lines) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Join(l.kept, nil)
}
