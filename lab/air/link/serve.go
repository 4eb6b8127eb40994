package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
)

// Machine is what the host may do to the machine.
type Machine interface {
	Plug(name string, mac net.HardwareAddr) error // makes a radio
	Unplug(name string) error
	// Watch calls down once, when the radio's interface goes down or away.
	Watch(name string, down func()) error
	Kill(process string) error
}

// Serve is the machine's end: it carries frames between the medium and the
// stream until ctx or either of them ends. It closes both.
func Serve(ctx context.Context, conn io.ReadWriteCloser, m air.Medium, machine Machine) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var writing sync.Mutex // of the stream: frames and complaints
	send := func(m message) error {
		writing.Lock()
		defer writing.Unlock()
		return write(conn, m)
	}
	var owned sync.WaitGroup
	h := &hung{names: map[string]string{}, radios: map[string]bool{}}
	owned.Go(func() {
		in, err := greet(conn, send)
		if err != nil {
			cancel(err)
			return
		}
		owned.Go(func() { cancel(outward(ctx, m, h, send)) })
		cancel(inward(in, m, machine, h, send))
	})
	<-ctx.Done()
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		cause = nil
	} else {
		lastWord(send, cause)
	}
	err := errors.Join(m.Close(), conn.Close())
	owned.Wait()
	return errors.Join(cause, err)
}

// lastWordWait is for a host that reads.
const lastWordWait = time.Second

// lastWord has the host's log say why the radios go. The stream may be what has
// ended.
func lastWord(send func(message) error, cause error) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		_ = send(message{Kind: trouble, Text: "all radios go: " + cause.Error()})
	}()
	select {
	case <-said:
	case <-time.After(lastWordWait):
	}
}

// greet makes itself known to the host and returns the stream from where it is
// for this process.
func greet(conn io.Reader, send func(message) error) (*bufio.Reader, error) {
	greeting := make([]byte, greetingSize)
	rand.Read(greeting)
	if err := send(message{Kind: hello, Data: greeting}); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	for last := []byte(nil); ; {
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		if last = append(last, b); len(last) > greetingSize {
			last = last[1:]
		}
		if bytes.Equal(last, greeting) {
			return in, nil
		}
	}
}

func outward(ctx context.Context, m air.Medium, h *hung, send func(message) error) error {
	for {
		f, err := m.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, syscall.ENOBUFS) {
			continue // the radios take it for silence
		}
		if err == nil && h.hangs(f.Transmitter) {
			continue
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

func inward(in io.Reader, m air.Medium, machine Machine, h *hung, send func(message) error) error {
	for {
		msg, err := read(in)
		if err != nil {
			return err
		}
		switch msg.Kind {
		case deliver, report:
			if h.hangs(msg.Address) {
				continue
			}
		}
		switch msg.Kind {
		case deliver:
			err = m.Deliver(msg.Address, msg.Data, msg.Rate, msg.Signal, msg.FreqMHz)
		case report:
			err = m.Report(hwsim.Frame{Transmitter: msg.Address, Flags: msg.Flags, Cookie: msg.Cookie}, msg.Acked, msg.Signal, msg.Plan)
		case plug:
			if err = machine.Plug(msg.Text, msg.Address); err == nil {
				h.plug(msg.Text, msg.Address)
				err = send(message{Kind: plugged, Text: msg.Text})
			} else {
				err = tell(send, "plug", msg.Text, err)
			}
		case unplug:
			err = tell(send, "unplug", msg.Text, machine.Unplug(msg.Text))
		case wedge:
			h.set(msg.Text, true)
			err = machine.Watch(msg.Text, func() {
				h.set(msg.Text, false)
				_ = send(message{Kind: freed, Text: msg.Text}) // who reads the stream sees its end
			})
			if err != nil {
				h.set(msg.Text, false)
			}
			err = tell(send, "wedge", msg.Text, err)
		case kill:
			if err = machine.Kill(msg.Text); err == nil {
				err = send(message{Kind: killed, Text: msg.Text})
			} else {
				err = tell(send, "kill", msg.Text, err)
			}
		}
		if err != nil {
			return err
		}
	}
}

// hung is which radios' drivers hang.
type hung struct {
	mu     sync.Mutex
	names  map[string]string // addresses, by the radios' names
	radios map[string]bool   // those that hang, by address
}

func (h *hung) plug(name string, mac net.HardwareAddr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names[name] = mac.String()
}

func (h *hung) set(name string, hangs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hangs {
		h.radios[h.names[name]] = true
	} else {
		delete(h.radios, h.names[name])
	}
}

func (h *hung) hangs(mac net.HardwareAddr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.radios) > 0 && h.radios[mac.String()]
}

// tell lets the host know that something it asked for failed, which is no
// reason for the others to fall silent.
func tell(send func(message) error, what, name string, err error) error {
	if err == nil {
		return nil
	}
	return send(message{Kind: trouble, Text: fmt.Sprintf("%s %s: %v", what, name, err)})
}
