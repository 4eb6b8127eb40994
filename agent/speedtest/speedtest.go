// Package speedtest measures what the overlay carries between two devices: one
// serves, for one test and one other device, the other connects and measures. A
// direction is judged by what arrives and when, at its receiver. It ends when all is
// sent or the time is over, so that a slow link is measured with less, and nothing
// is sent that was not asked for by whoever has the ticket.
//
// The one that measures sends a greeting: 8 octets that name the form, the ticket,
// and, big endian, the octets down, the octets up and the milliseconds of each
// direction. Then
//
//	measures                       serves
//	  1 octet       ───────────▶
//	                ◀───────────   the same           (some times)
//	                ◀───────────   frames down
//	  frames up     ───────────▶
//	                ◀───────────   octets that arrived, octets and nanoseconds behind the first frame
//
// A frame is its length in four octets and as many of noise; one of length 0 is the
// last.
package speedtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"halo.internal/model"
)

const (
	form        = "HALOspd1"
	greeting    = len(form) + len(model.SpeedTicket{}) + 3*4
	frame       = 8 << 10
	pings       = 5
	lastPing    = 0xff
	sendBuffer  = 64 << 10         // what waits in the kernel when the time is over still has to arrive
	connectWait = 10 * time.Second // for the other device, and for each answer
	tailWait    = 20 * time.Second // for what was sent in time to arrive: a slow link holds much of it
	maxStrange  = 8                // connections that are not the one that is waited for
)

// ErrStrange is wrapped where somebody came who has no ticket.
var ErrStrange = errors.New("not the device that is waited for")

// Request is what is to be measured.
type Request struct {
	Ticket   model.SpeedTicket
	Down, Up int
	Limit    time.Duration // of each direction
}

func (r Request) encode() []byte {
	b := append([]byte(form), r.Ticket[:]...)
	for _, v := range []uint32{uint32(r.Down), uint32(r.Up), uint32(r.Limit / time.Millisecond)} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// Measure measures the way to the device that serves at that address.
func Measure(ctx context.Context, peer netip.AddrPort, q Request) (model.SpeedResult, error) {
	var res model.SpeedResult
	dialer := net.Dialer{Timeout: connectWait}
	c, err := dialer.DialContext(ctx, "tcp", peer.String())
	if err != nil {
		return res, fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	defer closeWith(ctx, c)()
	w := newWay(c)
	if err := w.send(q.encode()); err != nil {
		return res, err
	}
	if res.LatencyMS, err = w.ping(); err != nil {
		return res, w.why(ctx, "latency", err)
	}
	down, err := w.receive(q.Down, q.Limit)
	if err != nil {
		return res, w.why(ctx, "down", err)
	}
	res.Down = down.way(q.Down)
	if _, err = w.transmit(q.Up, q.Limit); err == nil {
		res.Up, err = w.verdict(q.Up)
	}
	if err != nil {
		return res, w.why(ctx, "up", err)
	}
	return res, nil
}

// Serve waits on l for the device of that address with that very request, and serves
// it once. It returns how much was sent and received.
func Serve(ctx context.Context, l net.Listener, peer netip.Addr, want Request) (sent, received int64, err error) {
	defer closeWith(ctx, l)()
	strange := error(nil)
	for range maxStrange {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return 0, 0, errors.Join(fmt.Errorf("nobody came: %w", context.Cause(ctx)), strange)
			}
			return 0, 0, err
		}
		w, err := admit(c, peer, want)
		if err != nil {
			_ = c.Close() // it is nobody
			strange = err
			continue
		}
		defer c.Close()
		defer closeWith(ctx, c)()
		sent, received, err := w.serve(want)
		if err != nil {
			err = w.why(ctx, "serve", err)
		}
		return sent, received, err
	}
	return 0, 0, fmt.Errorf("%d connections: %w", maxStrange, strange)
}

// closeWith closes c when ctx ends, unless the function returned was called before.
func closeWith(ctx context.Context, c io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.Close() }) // whoever uses it gets an error
}

// admit reads a greeting, and takes the one that is waited for alone.
func admit(c net.Conn, peer netip.Addr, want Request) (*way, error) {
	remote, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil || remote.Addr().Unmap() != peer {
		return nil, fmt.Errorf("%w: %s", ErrStrange, c.RemoteAddr())
	}
	w := newWay(c)
	b := make([]byte, greeting)
	if err := w.read(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStrange, err)
	}
	if subtle.ConstantTimeCompare(b, want.encode()) != 1 {
		return nil, fmt.Errorf("%w: %s has another ticket, or asks for something else", ErrStrange, remote)
	}
	return w, nil
}

// way is a connection of a test.
type way struct {
	c     net.Conn
	in    *bufio.Reader
	noise []byte
}

func newWay(c net.Conn) *way {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(sendBuffer) // a bigger one measures as well, and ends later
	}
	w := &way{c: c, in: bufio.NewReaderSize(c, frame), noise: make([]byte, 4+frame)}
	rand.Read(w.noise[4:]) // nothing on the way can make it less
	return w
}

// why adds where a test was when its context or the connection ended.
func (w *way) why(ctx context.Context, where string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", where, err)
}

func (w *way) send(b []byte) error {
	if err := w.c.SetWriteDeadline(time.Now().Add(connectWait)); err != nil {
		return err
	}
	_, err := w.c.Write(b)
	return err
}

func (w *way) read(b []byte) error {
	if err := w.c.SetReadDeadline(time.Now().Add(connectWait)); err != nil {
		return err
	}
	_, err := io.ReadFull(w.in, b)
	return err
}

// ping returns the least of some round trips, in milliseconds.
func (w *way) ping() (ms float64, err error) {
	least := time.Duration(1<<63 - 1)
	b := make([]byte, 1)
	for i := range pings {
		b[0] = byte(i)
		if i == pings-1 {
			b[0] = lastPing
		}
		begin := time.Now()
		if err := w.send(b); err != nil {
			return 0, err
		}
		if err := w.read(b); err != nil {
			return 0, err
		}
		least = min(least, time.Since(begin))
	}
	return float64(least) / float64(time.Millisecond), nil
}

// serve is the other side of Measure.
func (w *way) serve(q Request) (sent, received int64, err error) {
	b := make([]byte, 1)
	for range pings {
		if err := w.read(b); err != nil {
			return 0, 0, err
		}
		if err := w.send(b); err != nil {
			return 0, 0, err
		}
		if b[0] == lastPing {
			break
		}
	}
	if b[0] != lastPing {
		return 0, 0, fmt.Errorf("expected at most %d pings", pings)
	}
	if sent, err = w.transmit(q.Down, q.Limit); err != nil {
		return sent, 0, err
	}
	up, err := w.receive(q.Up, q.Limit)
	if err != nil {
		return sent, up.all, err
	}
	return sent, up.all, w.send(up.encode())
}

// transmit sends octets until all are sent or the time is over.
func (w *way) transmit(octets int, limit time.Duration) (sent int64, err error) {
	end := time.Now().Add(limit)
	if err := w.c.SetWriteDeadline(end.Add(tailWait)); err != nil {
		return 0, err
	}
	for left := octets; left > 0 && time.Now().Before(end); {
		n := min(left, frame)
		binary.BigEndian.PutUint32(w.noise, uint32(n))
		if _, err := w.c.Write(w.noise[:4+n]); err != nil {
			return sent, err
		}
		left -= n
		sent += int64(n)
	}
	_, err = w.c.Write(make([]byte, 4))
	return sent, err
}

// arrived is what came of a direction.
type arrived struct {
	all    int64
	behind int64 // of these, behind the first frame, which was on its way before the time began
	took   time.Duration
}

const verdict = 3 * 8

func (a arrived) encode() []byte {
	b := make([]byte, 0, verdict)
	for _, v := range []int64{a.all, a.behind, int64(a.took)} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func decodeArrived(b []byte, most int) (arrived, error) {
	all, behind, took := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	if longest := model.SpeedLimit + tailWait; all > uint64(most) || behind > all || took > uint64(longest) {
		return arrived{}, fmt.Errorf("expected at most %d octets within %s, got %d and %d in %d ns", most, longest, all, behind, took)
	}
	return arrived{int64(all), int64(behind), time.Duration(took)}, nil
}

func (a arrived) way(most int) model.SpeedWay {
	s := model.Way(a.behind, a.took, a.all < int64(most))
	s.Bytes = a.all
	return s
}

// receive takes what the other side sends.
func (w *way) receive(most int, limit time.Duration) (arrived, error) {
	var a arrived
	if err := w.c.SetReadDeadline(time.Now().Add(limit + tailWait)); err != nil {
		return a, err
	}
	var begin time.Time
	head, b := make([]byte, 4), make([]byte, frame)
	for {
		if _, err := io.ReadFull(w.in, head); err != nil {
			return a, err
		}
		n := binary.BigEndian.Uint32(head)
		if n == 0 {
			return a, nil
		}
		if n > frame || a.all+int64(n) > int64(most) {
			return a, fmt.Errorf("expected frames of at most %d octets, %d in all, got %d after %d", frame, most, n, a.all)
		}
		if _, err := io.ReadFull(w.in, b[:n]); err != nil {
			return a, err
		}
		if a.all += int64(n); begin.IsZero() {
			begin = time.Now()
			continue
		}
		a.behind, a.took = a.behind+int64(n), time.Since(begin)
	}
}

// verdict reads what the other side has received of so many octets.
func (w *way) verdict(most int) (model.SpeedWay, error) {
	b := make([]byte, verdict)
	if err := w.c.SetReadDeadline(time.Now().Add(tailWait + connectWait)); err != nil {
		return model.SpeedWay{}, err
	}
	if _, err := io.ReadFull(w.in, b); err != nil {
		return model.SpeedWay{}, err
	}
	a, err := decodeArrived(b, most)
	return a.way(most), err
}
