// Package commit is how a healthy system says so. The guard of halo-init holds
// the only timer that can undo an update, so that a broken update cannot stop
// it; halo-mesh tells it over a Unix socket that this start is good, and the
// guard commits the slot.
//
// The conversation is one line each way: "healthy", then "ok" or "error: " and
// what went wrong.
package commit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	request = "healthy"
	granted = "ok"
	failed  = "error: "
	maxLine = 512
	patient = 5 * time.Second // for a line to come; both ends are on one machine
)

// Healthy tells the guard behind the socket that this start is healthy. When it
// returns nil, the slot is committed on the disk.
func Healthy(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := io.WriteString(c, request+"\n"); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	answer, err := line(c)
	if err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("guard: answer: %w", err))
	}
	if reason, ok := strings.CutPrefix(answer, failed); ok {
		return fmt.Errorf("guard: %s", reason)
	}
	if answer != granted {
		return fmt.Errorf("guard: expected %q, got %q", granted, answer)
	}
	return nil
}

// Serve answers on l until it is closed or ctx ends; healthy is called for each
// request, one at a time.
func Serve(ctx context.Context, l net.Listener, healthy func() error) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("guard socket: %w", err)
		}
		answer(c, healthy)
	}
}

func answer(c net.Conn, healthy func() error) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
		return
	}
	l, err := line(c)
	reply := granted
	switch {
	case err != nil:
		reply = failed + err.Error()
	case l != request:
		reply = fmt.Sprintf("%sexpected %q, got %.40q", failed, request, l)
	default:
		if err := healthy(); err != nil {
			reply = failed + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
	}
	// The one who asked may be gone; there is nobody to tell.
	_, _ = io.WriteString(c, reply[:min(len(reply), maxLine-1)]+"\n")
}

// line reads one line of bounded length.
func line(r io.Reader) (string, error) {
	b, err := bufio.NewReader(io.LimitReader(r, maxLine)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("expected a line of less than %d octets: %w", maxLine, err)
	}
	return b[:len(b)-1], nil
}
