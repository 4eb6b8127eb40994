package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
)

// qmp speaks the QEMU Machine Protocol: JSON objects, one a line.
type qmp struct {
	conn  net.Conn
	one   sync.Mutex      // one command at a time
	back  chan qmpMessage // its answer
	ready chan struct{}   // closed when QEMU takes commands
	gone  chan struct{}   // closed when the connection has ended

	mu     sync.Mutex // guards reason
	reason string
}

type qmpMessage struct {
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

const maxQMPLine = 1 << 20

// newQMP takes the connection.
func newQMP(conn net.Conn) *qmp {
	return &qmp{conn: conn, back: make(chan qmpMessage, 1), ready: make(chan struct{}), gone: make(chan struct{})}
}

// read handles what QEMU says until it is gone. QEMU wants its capabilities
// negotiated before anything else.
func (q *qmp) read() {
	defer close(q.gone)
	// A QEMU that is gone already cannot take this, but may have said why.
	_, _ = q.conn.Write([]byte(`{"execute":"qmp_capabilities"}` + "\n"))
	negotiated := false
	lines := bufio.NewScanner(q.conn)
	lines.Buffer(nil, maxQMPLine)
	for lines.Scan() {
		var m qmpMessage
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			return // not QEMU any more
		}
		switch {
		case m.Event != "":
			q.event(m)
		case m.Return == nil && m.Error == nil: // the greeting
		case !negotiated:
			negotiated = true
			close(q.ready)
		default:
			select {
			case q.back <- m:
			default: // nobody waits any longer
			}
		}
	}
}

// event remembers why the machine ends: the watchdog's event comes before that
// of the reset that it causes.
func (q *qmp) event(m qmpMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case m.Event == "WATCHDOG":
		q.reason = endWatchdog
	case m.Event == "SHUTDOWN" && q.reason == "":
		q.reason = m.Data.Reason
	}
}

// end returns why the machine ended, empty when QEMU did not say.
func (q *qmp) end() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reason
}

func (q *qmp) execute(ctx context.Context, command string) error {
	q.one.Lock()
	defer q.one.Unlock()
	select {
	case <-q.ready:
	case <-q.gone:
		return ErrOff
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-q.back: // of a command whose caller did not wait
	default:
	}
	if _, err := fmt.Fprintf(q.conn, "{\"execute\":%q}\n", command); err != nil {
		return err
	}
	select {
	case m := <-q.back:
		if m.Error != nil {
			return fmt.Errorf("QEMU refused: %s", m.Error.Desc)
		}
		return nil
	case <-q.gone:
		return nil // a reset ends QEMU faster than it answers
	case <-ctx.Done():
		return ctx.Err()
	}
}
