package nstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Shakes listens on a cable for the handshakes of WireGuard. How they went tells
// whether a session was lost or refused, on a host of any speed: who has a session
// begins no other within two minutes, and who is refused gets no answer.
type Shakes struct {
	t      testing.TB
	fd     int
	list   []Shake
	pauses *Pauses
}

// Shake is the beginning of a handshake, and what came of it.
type Shake struct {
	From, To netip.Addr
	Answered bool
	Used     bool // its initiator sends in the session that it made
	Again    bool // these two had one in use already, of another handshake that was listened to

	initiator, responder uint32 // as they name the session
}

func (s Shake) String() string {
	return fmt.Sprintf("%s to %s: answered %v, used %v, again %v", s.From, s.To, s.Answered, s.Used, s.Again)
}

// between tells whether two handshakes are of the same two ends.
func (s Shake) between(o Shake) bool {
	return s.From == o.From && s.To == o.To || s.From == o.To && s.To == o.From
}

// Offsets in a frame: of Ethernet, of IPv6 without further headers, of UDP, and of
// messages of WireGuard (whitepaper, 5.4).
const (
	atEtherType = 12
	atNext      = 14 + 6
	atSource    = 14 + 8
	atTarget    = 14 + 24
	atPort      = 14 + 40 + 2
	atMessage   = 14 + 40 + 8
	atFirst     = atMessage + 4 // sender; of data, receiver
	atSecond    = atMessage + 8 // of a response, receiver; of data, counter
	leastFrame  = atMessage + 16
)

// Kinds of messages.
const (
	initiation = 1
	response   = 2
	data       = 4
)

// stall is the pause of the host at which a handshake may be tried twice without a
// fault: it takes some twenty wakings of threads, and who gets no answer tries again
// after five seconds.
const stall = 250 * time.Millisecond

// ListenShakes listens on an interface of the thread's namespace until the test ends.
func ListenShakes(t testing.TB, iface string, port uint16) *Shakes {
	t.Helper()
	// Of data, the first packet of each session: so little never fills the socket,
	// however late it is read.
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: atEtherType, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 13},
		bpf.LoadAbsolute{Off: atNext, Size: 1}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 11},
		bpf.LoadAbsolute{Off: atPort, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(port), SkipTrue: 9},
		bpf.LoadAbsolute{Off: atMessage, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: initiation, SkipTrue: 6}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: response, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: data, SkipTrue: 5},
		bpf.LoadAbsolute{Off: atSecond, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 3},
		bpf.LoadAbsolute{Off: atSecond + 4, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: leastFrame}, bpf.RetConstant{Val: 0},
	})
	must(t, err)
	code := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		code[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	// Nothing comes before the filter is there: the socket is of no protocol until bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	s := &Shakes{t: t, fd: fd, pauses: WatchPauses(t)}
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}))
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: Link(t, iface).Attrs().Index}))
	return s
}

// Clear forgets what was heard until now.
func (s *Shakes) Clear() {
	s.t.Helper()
	s.List()
	s.Forget()
}

// Forget forgets what List has returned.
func (s *Shakes) Forget() {
	s.list = nil
	s.pauses.Clear()
}

// List returns what was heard since Clear, in its order. What was sent before is in
// it: the kernel hands it over as it is sent.
func (s *Shakes) List() []Shake {
	s.t.Helper()
	for b := make([]byte, leastFrame); ; {
		n, _, err := unix.Recvfrom(s.fd, b, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
			continue
		case errors.Is(err, unix.EAGAIN):
			return s.list
		case err != nil:
			s.t.Fatalf("listen for handshakes: %v", err)
		case n == leastFrame:
			s.hear(b)
		}
	}
}

func (s *Shakes) hear(b []byte) {
	from, to := netip.AddrFrom16([16]byte(b[atSource:])), netip.AddrFrom16([16]byte(b[atTarget:]))
	first, second := binary.LittleEndian.Uint32(b[atFirst:]), binary.LittleEndian.Uint32(b[atSecond:])
	if b[atMessage] == initiation {
		n := Shake{From: from, To: to, initiator: first}
		for _, o := range s.list {
			n.Again = n.Again || o.Used && o.between(n)
		}
		s.list = append(s.list, n)
		return
	}
	for i := range s.list {
		switch o := &s.list[i]; {
		case b[atMessage] == response && o.From == to && o.To == from && o.initiator == second:
			o.Answered, o.responder = true, first
		case b[atMessage] == data && o.From == from && o.To == to && o.Answered && o.responder == first:
			o.Used = true
		}
	}
}

// pairs returns what was heard, by the two ends that it was between.
func (s *Shakes) pairs() (list [][]Shake) {
	s.t.Helper()
next:
	for _, n := range s.List() {
		for i, p := range list {
			if n.between(p[0]) {
				list[i] = append(p, n)
				continue next
			}
		}
		list = append(list, []Shake{n})
	}
	return list
}

// Used counts the pairs of ends that have a session by a handshake that was heard.
func (s *Shakes) Used() (pairs int) {
	s.t.Helper()
	for _, p := range s.pairs() {
		if slices.ContainsFunc(p, func(o Shake) bool { return o.Used }) {
			pairs++
		}
	}
	return pairs
}

// Refused tells of handshakes that got no answer: for the first between two ends that
// is so on any host. A later one may lack it where the host paused, so that two tries
// came at once, and when nothing has followed it yet.
func (s *Shakes) Refused() error {
	s.t.Helper()
	var errs []error
	for _, p := range s.pairs() {
		for i, o := range p {
			if !o.Answered && (i == 0 || i < len(p)-1 && s.pauses.Longest() < stall) {
				errs = append(errs, fmt.Errorf("a handshake was refused: try %d of %v", i+1, p))
			}
		}
	}
	return errors.Join(errs...)
}

// Once tells what speaks against it that all that was heard is one handshake for each of
// so many pairs, which was taken at the first try, and whose session has lasted since.
// Where the host paused, a further try before there was a session is none.
func (s *Shakes) Once(pairs int) error {
	s.t.Helper()
	errs := []error{s.Refused()}
	list := s.pairs()
	for _, p := range list {
		if slices.ContainsFunc(p, func(o Shake) bool { return o.Again }) {
			errs = append(errs, fmt.Errorf("a session was lost, or given up: %v", p))
		}
		if len(p) > 1 && s.pauses.Longest() < stall {
			errs = append(errs, fmt.Errorf("expected one try on a host that paused for %s at most, got %d: %v", s.pauses.Longest(), len(p), p))
		}
	}
	if used := s.Used(); used != pairs || len(list) != pairs {
		errs = append(errs, fmt.Errorf("expected sessions of %d pairs, got %d: %v", pairs, used, list))
	}
	return errors.Join(errs...)
}
