package peering

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/mesh/fakeair"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// story is two stations, what was heard of them since the beginning, and a check
// of both engines after each thing that happens.
type story struct {
	t       testing.TB
	air     *fakeair.Air
	change  func(*Config)
	at      [2]*station
	lives   byte           // stations begun, which are no two alike
	secrets byte           // PMKSAs shared
	heard   []fakeair.Sent // by somebody who records
}

// maxHeard is how much is recorded: a program that only makes frames ends.
const maxHeard = 500

// witness is a station whose engine is checked whenever anything reached it.
type witness struct {
	*station
	t    testing.TB
	read int // events
}

func newStory(t testing.TB, seed uint64, change func(*Config)) *story {
	s := &story{t: t, air: fakeair.New(seed), change: change}
	s.air.Tap = func(_ time.Time, f fakeair.Sent) {
		if len(s.heard) < maxHeard {
			s.heard = append(s.heard, fakeair.Sent{From: f.From, Frame: dot11.Frame{To: f.Frame.To, Bytes: bytes.Clone(f.Frame.Bytes)}})
		}
	}
	s.begin(0)
	s.begin(1)
	s.share()
	return s
}

// begin is a new life of a station, which knows nothing of the one before.
func (s *story) begin(i int) {
	s.lives++
	s.at[i] = join(s.t, s.air, i+1, func(c *Config) {
		if s.change != nil {
			s.change(c)
		}
		c.Rand = rand.NewChaCha8([32]byte{s.lives, 11})
	})
	s.air.Join(s.at[i].mac, &witness{station: s.at[i], t: s.t})
}

// share is SAE.
func (s *story) share() {
	s.secrets++
	share(s.t, s.air, s.at[0], s.at[1], s.secrets)
	s.air.Kick()
}

// again gives both the PMKSA that was shared last.
func (s *story) again() {
	share(s.t, s.air, s.at[0], s.at[1], s.secrets)
	s.air.Kick()
}

func (s *story) connect(i int) {
	_ = s.at[i].Connect(s.air.Now, s.at[1-i].mac) // ErrLinked and ErrNoKey are part of stories
	s.air.Kick()
}

// leave has a side close its link, which the other does not hear.
func (s *story) leave(i int) {
	s.air.Loss = 1
	s.at[i].Disconnect(s.air.Now, s.at[1-i].mac, dot11.MeshPeeringCancelled)
	s.air.Kick()
	s.air.Loss = 0
}

// unanswered is the end of a check, if the link stands.
func (s *story) unanswered(i int) {
	if p := s.at[i].peers[s.at[1-i].mac]; p != nil && p.link != nil && p.link.state == Estab {
		p.link.tries, p.link.timer = checks, s.air.Now
		s.at[i].Advance(s.air.Now)
		s.air.Kick()
	}
}

func (s *story) replay(n int) {
	f := s.heard[n].Frame
	s.air.Inject(f.To, bytes.Clone(f.Bytes))
}

// Drain checks what is there after each call of the engine.
func (w *witness) Drain() []dot11.Frame {
	w.t.Helper()
	frames := w.station.Drain()
	for ; w.read < len(w.events); w.read++ {
		if err := w.consistent(w.read); err != nil {
			w.t.Fatalf("%s, event %d of %v: %v", w.mac, w.read, w.told(), err)
		}
	}
	for _, p := range w.peers {
		if err := p.sound(); err != nil {
			w.t.Fatalf("%s: %v; %v", w.mac, err, w.told())
		}
	}
	return frames
}

// told is what became of links, for people.
func (s *station) told() (list []string) {
	for _, ev := range s.events {
		switch ev.Kind {
		case Changed:
			list = append(list, fmt.Sprintf("%v-%v", ev.From, ev.To))
		case Closed:
			list = append(list, "closed")
		case Failed:
			list = append(list, fmt.Sprintf("failed: %v", ev.Reason))
		case Established:
			list = append(list, fmt.Sprintf("established, again %v", ev.Again))
		}
	}
	return list
}

// sound tells what must never be of a peer.
func (p *peer) sound() error {
	switch {
	case p.next != nil && (p.link == nil || p.link.state != Estab):
		return fmt.Errorf("an instance beside no link that stands: %v", p.state())
	case p.next != nil && (p.next.state == Estab || p.next.state == Holding || p.next.state == Listen):
		return fmt.Errorf("an instance beside the link is %v", p.next.state)
	case p.link != nil && (p.link.state == Holding || p.link.state == Listen):
		return fmt.Errorf("the link is %v", p.link.state)
	case p.held != nil && p.held.state != Holding:
		return fmt.Errorf("what is held is %v", p.held.state)
	case p.told != p.state():
		return fmt.Errorf("%v was told, and it is %v", p.told, p.state())
	}
	for _, l := range []*link{p.link, p.next, p.held} {
		switch {
		case l == nil:
		case l.timer.IsZero():
			return fmt.Errorf("nothing ends %v", l.state)
		case p.age(l.security) < 0:
			return fmt.Errorf("%v is under a PMKSA that is not held", l.state)
		}
	}
	return nil
}

// consistent tells why an event cannot follow those before it: whoever has the
// station in a kernel goes by nothing else.
func (w *witness) consistent(i int) error {
	state := Listen
	stood, keys := false, false // a link; keys that wait for the state
	for j, ev := range w.events[:i+1] {
		last := j == i
		var err error
		switch ev.Kind {
		case Changed:
			switch {
			case ev.From != state || ev.To == ev.From:
				err = fmt.Errorf("%v was told before", state)
			case (ev.To == Estab) != keys:
				err = fmt.Errorf("keys %v", keys)
			case state == Holding && ev.To != Listen:
				err = fmt.Errorf("what was left of the link serves another")
			}
			if ev.To == Estab {
				stood = true
			}
			state, keys = ev.To, false
		case Established:
			switch {
			case ev.Again != (state == Estab):
				err = fmt.Errorf("again %v, in %v", ev.Again, state)
			case ev.Keys.MTK == (Key{}) || ev.Keys.Peer.MGTK == (Key{}):
				err = fmt.Errorf("without keys")
			}
			keys = !ev.Again
		case Closed:
			if !stood || state != Holding {
				err = fmt.Errorf("no link stood: %v", state)
			}
			stood = false
		}
		if last {
			return err
		}
	}
	return nil
}

// rest lets all come to an end on a good air, and compares both sides.
func (s *story) rest() {
	s.t.Helper()
	s.air.Loss, s.air.Duplicate, s.air.Jitter, s.air.Cut = 0, 0, 0, nil
	s.air.Run(10 * time.Minute)
	a, b := s.at[0], s.at[1]
	x, y := a.State(b.mac), b.State(a.mac)
	if (x == Estab) != (y == Estab) {
		s.t.Fatalf("half open: %v and %v\n%v\n%v", x, y, a.told(), b.told())
	}
	if x == Estab {
		agree(s.t, a, b)
	}
	for _, w := range s.at {
		for _, p := range w.peers {
			if p.state() != Estab && !p.wanted && p.state() != Listen || p.state() == Estab && (p.next != nil || p.held != nil) {
				s.t.Fatalf("%s does not come to rest: %v\n%v", w.mac, p.state(), w.told())
			}
		}
	}
}

// joined makes the link of both anew, whatever came before.
func (s *story) joined() {
	s.t.Helper()
	for range 2 { // the first attempt may find that one side's link is over
		s.connect(0)
		s.connect(1)
		s.rest()
	}
	if !linked(s.at[0], s.at[1]) {
		s.t.Fatalf("no link: %v and %v\n%v\n%v", s.at[0].State(s.at[1].mac), s.at[1].State(s.at[0].mac), s.at[0].told(), s.at[1].told())
	}
}

// tell has happen what an octet says.
func (s *story) tell(op, arg byte) {
	i := int(arg & 1)
	switch op %= 14; op {
	case 0: // a side is killed, and seeks the other under a new PMKSA
		s.begin(i)
		s.share()
		s.connect(i)
	case 1: // under the PMKSA there was, which both can hold only if SAE's were cached
		s.begin(i)
		s.again()
		s.connect(i)
	case 2: // and does not seek it
		s.begin(i)
	case 3:
		s.share()
	case 4:
		s.connect(i)
	case 5:
		s.at[i].Disconnect(s.air.Now, s.at[1-i].mac, dot11.MeshPeeringCancelled)
		s.air.Kick()
	case 6: // part of an exchange: a frame takes a millisecond
		s.air.Run(time.Duration(arg) * 100 * time.Microsecond)
	case 7: // until what was asked for comes to nothing, and links are checked
		s.air.Run(time.Duration(arg) * 500 * time.Millisecond)
	case 8:
		s.air.Loss = float64(arg%4) / 3
	case 9:
		from := s.at[i].mac
		s.air.Cut = func(f, _ dot11.MAC) bool { return f == from }
		if arg&2 != 0 {
			s.air.Cut = nil
		}
	case 12: // it leaves by a Close that nobody hears, and comes back
		loss := s.air.Loss
		s.leave(i)
		s.air.Loss = loss
		s.begin(i)
		s.share()
		s.connect(i)
		s.air.Run(time.Duration(arg/2) * 50 * time.Microsecond)
	case 13: // the last question of a check is not answered
		s.unanswered(i)
	default: // the earlier of what was heard, or the later
		if n := len(s.heard); n > 0 && op == 10 {
			s.replay(int(arg) % n)
		} else if n > 0 {
			s.replay(n - 1 - int(arg)%n)
		}
	}
}

func (s *story) program(b []byte) {
	for ; len(b) >= 2 && s.lives < 100 && s.secrets < 100; b = b[2:] {
		s.tell(b[0], b[1])
	}
	s.rest()
	s.again() // whoever was killed last has no key otherwise
	s.joined()
}

var radios = []func(*Config){
	nil,
	func(c *Config) { c.Morse, c.Timing = true, HaLow },
	func(c *Config) { c.MFP = MFPOptional },
}

// FuzzStory has two stations be killed, seek and leave each other, on an air that
// loses, with all that was ever sent replayed at any moment.
func FuzzStory(f *testing.F) {
	f.Add(uint8(0), []byte{4, 0, 7, 1, 12, 60, 11, 0, 11, 1, 11, 2, 11, 3, 7, 9})
	f.Add(uint8(1), []byte{4, 1, 7, 9, 2, 1, 7, 250, 0, 1, 6, 15, 9, 1, 7, 250, 10, 3})
	f.Add(uint8(2), []byte{4, 1, 7, 9, 12, 61, 13, 0, 7, 250, 8, 1, 12, 40, 13, 1, 7, 9})
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		newStory(t, uint64(kind), radios[int(kind)%len(radios)]).program(b[:min(len(b), 120)])
	})
}

// TestStories are many, drawn by lot.
func TestStories(t *testing.T) {
	for seed := range uint64(1500) {
		random := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 2*(4+random.IntN(40)))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newStory(t, seed, radios[seed%3]).program(b) })
	}
}

// TestReplaysWhileAPeerBeginsAnew plays every frame that was ever sent at every
// moment at which a restarted peer's new instance is under way: among them the Close
// of the link that stands, which was not heard when it was sent.
func TestReplaysWhileAPeerBeginsAnew(t *testing.T) {
	const fresh, cached = 0, 1
	outlived := 0 // links that a replay ended while there was an instance beside it
	for _, change := range radios {
		for _, key := range []int{fresh, cached} {
			for moment := range 12 {
				for frame := 0; ; frame++ {
					s := newStory(t, 1, change)
					s.connect(0)
					s.air.Run(time.Second)
					agree(t, s.at[0], s.at[1])
					s.leave(0)
					n := len(s.heard)
					s.tell(byte(key), 0)
					s.air.Run(time.Duration(moment) * 500 * time.Microsecond)
					if frame >= n {
						break
					}
					next := s.at[1].peers[s.at[0].mac].next
					s.replay(frame)
					if next != nil && s.at[1].peers[s.at[0].mac].link == next {
						outlived++
					}
					s.air.Run(10 * time.Second)
					s.joined()
				}
			}
		}
	}
	if outlived == 0 {
		t.Error("no replay ended a link while there was an instance beside it")
	}
}

// TestTheInstanceBesideALinkOutlivesIt: the link that stood ends while its
// successor is being made, by a Close or because nobody answered its check.
func TestTheInstanceBesideALinkOutlivesIt(t *testing.T) {
	for name, ends := range map[string]func(s *story, old []byte){
		"Close": func(s *story, old []byte) { s.air.Inject(s.at[1].mac, old) },
		"check": func(s *story, _ []byte) { s.unanswered(1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, 1, nil)
			s.connect(0)
			s.air.Run(time.Second)
			s.leave(0)
			old := s.heard[len(s.heard)-1].Frame.Bytes
			s.tell(0, 0)
			s.air.Run(1500 * time.Microsecond)
			b := s.at[1]
			if p := b.peers[s.at[0].mac]; p.next == nil || p.next.state != OpnRcvd {
				t.Fatal("no instance beside the link")
			}
			before := len(b.told())
			ends(s, old)
			s.air.Run(time.Second)
			agree(t, s.at[0], b)
			got := b.told()[before:]
			want := []string{"ESTAB-HOLDING", "closed", "HOLDING-LISTEN", "LISTEN-OPN_RCVD", "established, again false", "OPN_RCVD-ESTAB"}
			if !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			s.rest()
		})
	}
}

// TestAPMKSAOfTheInstanceBesideALinkStays while others are offered; one that is
// withdrawn takes along what is under it, and what was to follow that.
func TestAPMKSAOfTheInstanceBesideALinkStays(t *testing.T) {
	s := newStory(t, 1, nil)
	s.connect(0)
	s.air.Run(time.Second)
	s.tell(0, 0)
	s.air.Run(1500 * time.Microsecond)
	b := s.at[1]
	p := b.peers[s.at[0].mac]
	link, next := p.link, p.next
	if next == nil {
		t.Fatal("no instance beside the link")
	}
	for range 5 {
		s.secrets++
		if err := b.Offer(s.air.Now, s.at[0].mac, 7, sae.PMKID{s.secrets}, sae.PMK{s.secrets}); err != nil {
			t.Fatal(err)
		}
	}
	s.air.Kick()
	if p.link != link || p.next != next || len(p.securities) != maxSecurities {
		t.Errorf("%d PMKSAs, and not those of the instances", len(p.securities))
	}
	b.Withdraw(s.at[0].mac, link.security.pmkid)
	s.air.Kick()
	if b.State(s.at[0].mac) != Listen {
		t.Errorf("%v", b.State(s.at[0].mac))
	}
	s.air.Run(time.Minute)
	s.joined()
}
