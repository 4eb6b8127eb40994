package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
)

// Radios makes and removes the machine's radios.
type Radios interface {
	Plug(name string, mac net.HardwareAddr) error
	Unplug(name string) error
}

// Serve is the machine's end: it carries frames between the medium and the
// stream until ctx or either of them ends. It closes both.
func Serve(ctx context.Context, conn io.ReadWriteCloser, m air.Medium, radios Radios) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var writing sync.Mutex // of the stream: frames and complaints
	send := func(m message) error {
		writing.Lock()
		defer writing.Unlock()
		return write(conn, m)
	}
	var owned sync.WaitGroup
	owned.Go(func() { cancel(outward(ctx, m, send)) })
	owned.Go(func() { cancel(inward(conn, m, radios, send)) })
	<-ctx.Done()
	err := errors.Join(m.Close(), conn.Close())
	owned.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

func outward(ctx context.Context, m air.Medium, send func(message) error) error {
	for {
		f, err := m.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, syscall.ENOBUFS) {
			continue // the radios take it for silence
		}
		if err == nil {
			err = send(message{
				Kind: frame, Address: f.Transmitter, Data: f.Data, Flags: f.Flags, Cookie: f.Cookie, FreqMHz: f.FreqMHz, Plan: f.Plan, Kinds: f.Kinds,
			})
		}
		if err != nil {
			return err
		}
	}
}

func inward(conn io.Reader, m air.Medium, radios Radios, send func(message) error) error {
	in := bufio.NewReader(conn)
	for {
		msg, err := read(in)
		if err != nil {
			return err
		}
		switch msg.Kind {
		case deliver:
			err = m.Deliver(msg.Address, msg.Data, msg.Rate, msg.Signal, msg.FreqMHz)
		case report:
			err = m.Report(hwsim.Frame{Transmitter: msg.Address, Flags: msg.Flags, Cookie: msg.Cookie}, msg.Acked, msg.Signal, msg.Plan)
		case plug:
			err = tell(send, "plug", msg.Text, radios.Plug(msg.Text, msg.Address))
		case unplug:
			err = tell(send, "unplug", msg.Text, radios.Unplug(msg.Text))
		}
		if err != nil {
			return err
		}
	}
}

// tell lets the host know that something about a radio failed, which is no
// reason for the others to fall silent.
func tell(send func(message) error, what, name string, err error) error {
	if err == nil {
		return nil
	}
	return send(message{Kind: trouble, Text: fmt.Sprintf("%s %s: %v", what, name, err)})
}
