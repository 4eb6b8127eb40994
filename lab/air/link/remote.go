package link

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"

	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
)

// Remote is the medium of a machine at the other end of a stream. Next is for
// one goroutine; the other methods may be called from any, and never wait: a
// machine that stands still hears nothing, and holds up nobody.
type Remote struct {
	conn io.ReadWriteCloser
	in   *bufio.Reader
	log  *slog.Logger
	out  chan message
	once sync.Once
	done chan struct{}
	wg   sync.WaitGroup
}

var _ air.Medium = (*Remote)(nil)

// backlog is how many messages a machine may be behind.
const backlog = 1024

// NewRemote takes the stream over.
func NewRemote(conn io.ReadWriteCloser, log *slog.Logger) *Remote {
	r := &Remote{conn: conn, in: bufio.NewReader(conn), log: log, out: make(chan message, backlog), done: make(chan struct{})}
	r.wg.Go(r.write)
	return r
}

func (r *Remote) write() {
	for {
		select {
		case <-r.done:
			return
		case m := <-r.out:
			if err := write(r.conn, m); err != nil {
				_ = r.conn.Close() // Next tells that it is over
				return
			}
		}
	}
}

func (r *Remote) put(m message) error {
	select {
	case <-r.done:
		return net.ErrClosed
	default:
	}
	select {
	case r.out <- m:
	default: // too far behind
	}
	return nil
}

// Next returns the next frame that one of the machine's radios sends.
func (r *Remote) Next() (hwsim.Frame, error) {
	for {
		m, err := read(r.in)
		if err != nil {
			return hwsim.Frame{}, err
		}
		switch m.Kind {
		case frame:
			return hwsim.Frame{
				Transmitter: m.Address, Data: m.Data, Flags: m.Flags, Cookie: m.Cookie, FreqMHz: m.FreqMHz, Plan: m.Plan, Kinds: m.Kinds,
			}, nil
		case trouble:
			r.log.Warn("radios of a machine", "err", m.Text)
		}
	}
}

// Deliver lets a radio hear a frame.
func (r *Remote) Deliver(receiver net.HardwareAddr, data []byte, rate, signalDBm, freqMHz int) error {
	return r.put(message{Kind: deliver, Address: receiver, Data: data, Rate: rate, Signal: signalDBm, FreqMHz: freqMHz})
}

// Report tells a radio what became of its frame.
func (r *Remote) Report(f hwsim.Frame, ack bool, signalDBm int, did hwsim.Attempts) error {
	return r.put(message{Kind: report, Address: f.Transmitter, Flags: f.Flags, Cookie: f.Cookie, Acked: ack, Signal: signalDBm, Plan: did})
}

// Plug gives the machine a radio.
func (r *Remote) Plug(name string, mac net.HardwareAddr) error {
	return r.put(message{Kind: plug, Text: name, Address: mac})
}

// Unplug takes one away.
func (r *Remote) Unplug(name string) error { return r.put(message{Kind: unplug, Text: name}) }

// Close ends the stream.
func (r *Remote) Close() error {
	var err error
	r.once.Do(func() {
		close(r.done)
		err = r.conn.Close()
	})
	r.wg.Wait()
	if errors.Is(err, net.ErrClosed) { // the writer was first
		return nil
	}
	return err
}
