package link

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"

	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
)

// Remote is the medium of a machine at the other end of a stream. Next is for
// one goroutine; the other methods may be called from any, and never wait: a
// machine that stands still hears nothing, and holds up nobody.
//
// The machine's end may come late, and may come again when its process was
// restarted: each time it greets, and is told anew which radios to make. What
// is for it before that is dropped.
type Remote struct {
	conn io.ReadWriteCloser
	in   *bufio.Reader
	told Notices
	log  *slog.Logger
	once sync.Once
	wake chan struct{}
	done chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	radios  []radio    // that the machine is to have
	greeted bool
	queue   []message
}

type radio struct {
	name string
	mac  net.HardwareAddr
}

var _ air.Medium = (*Remote)(nil)

// backlog is how many frames and reports a machine may be behind.
const backlog = 1024

// Notices are what a machine tells besides frames; Next calls them. Those that are
// nil are not told.
type Notices struct {
	Made   func(radio string)   // the machine has made a radio
	Freed  func(radio string)   // the driver of a radio does not hang any more
	Killed func(process string) // as Kill asked for
}

// NewRemote takes the stream over.
func NewRemote(conn io.ReadWriteCloser, told Notices, log *slog.Logger) *Remote {
	r := &Remote{conn: conn, in: bufio.NewReader(conn), told: told, log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
	r.wg.Go(r.write)
	return r
}

func (r *Remote) write() {
	for {
		select {
		case <-r.done:
			return
		case <-r.wake:
		}
		r.mu.Lock()
		batch := r.queue
		r.queue = nil
		r.mu.Unlock()
		for _, m := range batch {
			if err := write(r.conn, m); err != nil {
				_ = r.conn.Close() // Next tells that it is over
				return
			}
		}
	}
}

// put queues a message for the machine, if there is anybody to read it; r.mu is
// held. Frames and reports are dropped where it is too far behind.
func (r *Remote) put(m message) error {
	select {
	case <-r.done:
		return net.ErrClosed
	default:
	}
	behind := (m.Kind == deliver || m.Kind == report) && len(r.queue) >= backlog
	if !r.greeted || behind {
		return nil
	}
	r.queue = append(r.queue, m)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// welcome answers a machine that greets. What was queued is for its
// predecessor.
func (r *Remote) welcome(greeting []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.greeted, r.queue = true, nil
	err := r.put(message{Kind: welcome, Data: greeting})
	for _, radio := range r.radios {
		err = errors.Join(err, r.put(message{Kind: plug, Text: radio.name, Address: radio.mac}))
	}
	return err
}

// Next returns the next frame that one of the machine's radios sends.
func (r *Remote) Next() (hwsim.Frame, error) {
	for {
		m, err := read(r.in)
		if err != nil {
			return hwsim.Frame{}, err
		}
		switch m.Kind {
		case hello:
			if err := r.welcome(m.Data); err != nil {
				return hwsim.Frame{}, err
			}
		case plugged:
			r.tell(r.told.Made, m.Text)
		case freed:
			r.tell(r.told.Freed, m.Text)
		case killed:
			if r.told.Killed != nil {
				r.told.Killed(m.Text)
			}
		case frame:
			return hwsim.Frame{
				Transmitter: m.Address, Data: m.Data, Flags: m.Flags, Cookie: m.Cookie, FreqMHz: m.FreqMHz, Plan: m.Plan, Kinds: m.Kinds,
			}, nil
		case trouble:
			r.log.Warn("radios of a machine", "err", m.Text)
		}
	}
}

// tell hands a machine's word about one of its radios on.
func (r *Remote) tell(to func(string), name string) {
	if to != nil && r.wanted(name) {
		to(name)
	}
}

func (r *Remote) wanted(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.radios, func(o radio) bool { return o.name == name })
}

// Deliver lets a radio hear a frame.
func (r *Remote) Deliver(receiver net.HardwareAddr, data []byte, rate, signalDBm, freqMHz int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(message{Kind: deliver, Address: receiver, Data: data, Rate: rate, Signal: signalDBm, FreqMHz: freqMHz})
}

// Report tells a radio what became of its frame.
func (r *Remote) Report(f hwsim.Frame, ack bool, signalDBm int, did hwsim.Attempts) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(message{Kind: report, Address: f.Transmitter, Flags: f.Flags, Cookie: f.Cookie, Acked: ack, Signal: signalDBm, Plan: did})
}

// Plug gives the machine a radio, now or as soon as it greets.
func (r *Remote) Plug(name string, mac net.HardwareAddr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.radios = append(r.radios, radio{name, mac})
	return r.put(message{Kind: plug, Text: name, Address: mac})
}

// Unplug takes one away.
func (r *Remote) Unplug(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.radios = slices.DeleteFunc(r.radios, func(o radio) bool { return o.name == name })
	return r.put(message{Kind: unplug, Text: name})
}

// Wedge has the driver of a radio hang: it takes frames and says of none that it
// was sent, and hears nothing, until the radio's interface goes down or away.
func (r *Remote) Wedge(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(message{Kind: wedge, Text: name})
}

// Kill has a process of the machine die, as by a fault of its own.
func (r *Remote) Kill(process string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(message{Kind: kill, Text: process})
}

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
