package ether

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model/pcap"
)

// machine is the far end of a cable: it keeps what it hears.
type machine struct {
	t    *testing.T
	conn net.Conn
	mac  mac

	mu    sync.Mutex // guards heard: to sleep in a bubble orders nothing
	heard []heard
}

func (m *machine) hear(h heard) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = append(m.heard, h)
}

// all returns what was heard until now.
func (m *machine) all() []heard {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.heard)
}

func (m *machine) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = nil
}

type heard struct {
	text string
	at   time.Duration // since the bubble began
}

var broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// bench is a switch with machines a, b, c … in a bubble of fake time.
func bench(t *testing.T, n int, do func(*Switch, []*machine)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(slog.New(slog.DiscardHandler), 1)
		start := time.Now()
		var ms []*machine
		for i := range n {
			m := &machine{t: t, mac: mac{2, 0, 0, 0, 0, byte(i)}}
			m.plug(s, string(rune('a'+i)), start)
			ms = append(ms, m)
		}
		do(s, ms)
		s.Close()
	})
}

func (m *machine) plug(s *Switch, name string, start time.Time) {
	near, far := net.Pipe()
	m.conn = far
	if err := s.Plug(name, near); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		// The end of the test ends the pipe, and with it this.
		_ = readFrames(far, func(f []byte) { m.hear(heard{string(f[14:]), time.Since(start)}) })
	}()
}

func (m *machine) send(to mac, text string) {
	m.t.Helper()
	f := append(append(append([]byte{}, to[:]...), m.mac[:]...), 0x08, 0x00)
	if err := writeFrame(m.conn, append(f, text...)); err != nil {
		m.t.Fatal(err)
	}
	synctest.Wait()
}

func (m *machine) texts() string {
	var t []string
	for _, h := range m.all() {
		t = append(t, h.text)
	}
	return strings.Join(t, " ")
}

func TestLearnsWhereStationsAre(t *testing.T) {
	bench(t, 3, func(s *Switch, m []*machine) {
		m[0].send(m[1].mac, "flooded")
		m[1].send(m[0].mac, "learned")
		m[0].send(m[1].mac, "direct")
		m[2].send(broadcast, "all")
		time.Sleep(addressLife)
		m[1].send(m[0].mac, "stale")
		synctest.Wait()
		for i, want := range []string{"learned all stale", "flooded direct all", "flooded stale"} {
			if got := m[i].texts(); got != want {
				t.Errorf("machine %d heard %q, want %q", i, got, want)
			}
		}
		c := s.Status()["a"]
		if c.SentFrames != 2 || c.ReceivedFrames != 3 || !c.Plugged {
			t.Errorf("counters of a: got %+v, want 2 sent and 3 received", c)
		}
	})
}

func TestAStationThatMovesIsFound(t *testing.T) {
	bench(t, 3, func(s *Switch, m []*machine) {
		m[0].send(broadcast, "here")
		m[0].conn.Close()
		synctest.Wait()
		if s.Status()["a"].Plugged {
			t.Error("a closed connection still counts as plugged")
		}
		m[2].mac = m[0].mac
		m[1].send(m[0].mac, "where")
		if got := m[2].texts(); got != "here where" {
			t.Errorf("after the cable was pulled: heard %q, want the frame flooded", got)
		}
	})
}

func TestReplugCutsTheOldConnection(t *testing.T) {
	bench(t, 2, func(s *Switch, m []*machine) {
		old := m[0].conn
		m[0].plug(s, "a", time.Now())
		synctest.Wait()
		if _, err := old.Write([]byte{0, 0, 0, 14}); err == nil {
			t.Error("the old connection is still read")
		}
		m[1].send(broadcast, "again")
		if got := m[0].texts(); got != "again" {
			t.Errorf("heard %q, want %q", got, "again")
		}
	})
}

func TestConditions(t *testing.T) {
	const frames = 1000
	for _, tc := range []struct {
		name       string
		set        func(*Switch) error
		min, max   int           // frames that b hears
		first, end time.Duration // when it hears the first and the last
	}{
		{"perfect", func(*Switch) error { return nil }, frames, frames, 0, 0},
		{"cable loses", func(s *Switch) error { return s.SetLink("a", Condition{Loss: 0.3}) }, 600, 800, 0, 0},
		{"both cables lose", func(s *Switch) error {
			return errors.Join(s.SetLink("a", Condition{Loss: 0.3}), s.SetLink("b", Condition{Loss: 0.3}))
		}, 400, 580, 0, 0},
		{"pair loses all", func(s *Switch) error { return s.SetPair("b", "a", Condition{Loss: 1}) }, 0, 0, 0, 0},
		{"pair between others", func(s *Switch) error { return s.SetPair("b", "c", Condition{Loss: 1}) }, frames, frames, 0, 0},
		{"delay adds up", func(s *Switch) error {
			return errors.Join(s.SetLink("a", Condition{Delay: time.Second}), s.SetPair("a", "b", Condition{Delay: 2 * time.Second}))
		}, frames, frames, 3 * time.Second, 3 * time.Second},
		// A frame has 14 + 86 octets: 800 bits.
		{"rate", func(s *Switch) error { return s.SetLink("b", Condition{Rate: 8_000_000}) }, frames, frames, 100 * time.Microsecond, 100 * time.Millisecond},
		{"rate with a full queue", func(s *Switch) error { return s.SetLink("b", Condition{Rate: 80_000}) }, 101, 102, 10 * time.Millisecond, 1020 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bench(t, 3, func(s *Switch, m []*machine) {
				if err := tc.set(s); err != nil {
					t.Fatal(err)
				}
				for i := range frames {
					m[0].send(broadcast, fmt.Sprintf("%086d", i))
				}
				time.Sleep(time.Minute)
				got := m[1].all()
				if len(got) < tc.min || len(got) > tc.max {
					t.Fatalf("heard %d frames, want %d to %d", len(got), tc.min, tc.max)
				}
				for i := 1; i < len(got); i++ {
					if got[i].text <= got[i-1].text {
						t.Fatalf("frame %q came after %q", got[i].text, got[i-1].text)
					}
				}
				if len(got) > 0 && (got[0].at != tc.first || got[len(got)-1].at > tc.end) {
					t.Errorf("first after %s, last after %s; want %s and at most %s", got[0].at, got[len(got)-1].at, tc.first, tc.end)
				}
				c := s.Status()
				if sum := c["b"].ReceivedFrames + c["b"].Lost + c["b"].Overflow + c["a"].Lost; sum != frames {
					t.Errorf("%d of %d frames are accounted for: a %+v, b %+v", sum, frames, c["a"].Counters, c["b"].Counters)
				}
			})
		})
	}
}

func TestJitterSpreadsAndKeepsTheOrder(t *testing.T) {
	bench(t, 3, func(s *Switch, m []*machine) {
		if err := s.SetPair("a", "b", Condition{Delay: time.Second, Jitter: time.Second}); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			m[0].send(broadcast, fmt.Sprintf("%02d", i))
			time.Sleep(100 * time.Millisecond)
		}
		m[2].send(broadcast, "quick") // overtakes those of a, whose line is slow
		if got := m[1].texts(); !strings.HasSuffix(got, "quick") {
			t.Errorf("a frame on a fast line waited for those on a slow one: %q", got)
		}
		time.Sleep(time.Minute)
		at := map[time.Duration]bool{}
		last := ""
		for i, h := range m[1].all() {
			if h.text == "quick" {
				continue
			}
			if h.text <= last {
				t.Fatalf("%q came after %q", h.text, last)
			}
			if late := h.at - time.Duration(i)*100*time.Millisecond; late > 2*time.Second {
				t.Errorf("%q came after %s, want at most 2 s", h.text, late)
			}
			last, at[h.at] = h.text, true
		}
		if len(at) < 10 {
			t.Errorf("frames came at %d different times: no jitter", len(at))
		}
	})
}

func TestPartition(t *testing.T) {
	bench(t, 4, func(s *Switch, m []*machine) {
		for _, step := range []struct {
			groups [][]string
			want   [4]string // heard of one broadcast each from a and c
		}{
			{[][]string{{"a"}}, [4]string{"", "c", "", "c"}},
			{[][]string{{"a", "b"}, {"c", "d"}}, [4]string{"", "a", "", "c"}},
			{[][]string{{"a", "d"}}, [4]string{"", "c", "", "a"}},
			{nil, [4]string{"c", "a c", "a", "a c"}},
		} {
			s.Heal()
			if step.groups != nil {
				if err := s.Partition(step.groups...); err != nil {
					t.Fatal(err)
				}
			}
			for _, x := range m {
				x.forget()
			}
			m[0].send(broadcast, "a")
			m[2].send(broadcast, "c")
			for i, want := range step.want {
				if got := m[i].texts(); got != want {
					t.Errorf("partition %v: machine %d heard %q, want %q", step.groups, i, got, want)
				}
			}
		}
	})
}

func TestRefusesWhatItCannotDo(t *testing.T) {
	bench(t, 2, func(s *Switch, _ []*machine) {
		for _, tc := range []struct {
			err  error
			want string
		}{
			{s.SetLink("a", Condition{Loss: 1.5}), "loss: expected 0 to 1, got 1.5"},
			{s.SetLink("a", Condition{Delay: time.Hour}), "delay: expected 0 to 10s, got 1h0m0s"},
			{s.SetLink("a", Condition{Jitter: -1}), "jitter"},
			{s.SetLink("a", Condition{Rate: -1}), "rate"},
			{s.SetLink("z", Condition{}), `expected one of [a b], got "z"`},
			{s.SetPair("a", "z", Condition{}), `expected one of [a b], got "z"`},
			{s.SetPair("a", "a", Condition{}), "two different"},
			{s.Partition([]string{"a"}, []string{"a"}), "a is in two groups"},
			{s.Partition([]string{"z"}), `got "z"`},
		} {
			if tc.err == nil || !strings.Contains(tc.err.Error(), tc.want) {
				t.Errorf("got %v, want mention of %q", tc.err, tc.want)
			}
		}
	})
}

// A machine that is stopped reads nothing; what it misses must not pile up.
func TestAMachineThatDoesNotReadIsBounded(t *testing.T) {
	bench(t, 1, func(s *Switch, m []*machine) {
		near, far := net.Pipe() // nobody reads far
		defer far.Close()
		if err := s.Plug("stopped", near); err != nil {
			t.Fatal(err)
		}
		for range queueFrames + 100 {
			m[0].send(broadcast, "x")
		}
		c := s.Status()["stopped"]
		if c.Overflow == 0 || c.ReceivedFrames+c.Overflow != queueFrames+100 {
			t.Errorf("got %+v, want the frames beyond the queue dropped", c.Counters)
		}
	})
}

func TestAddressesAreBounded(t *testing.T) {
	bench(t, 2, func(s *Switch, m []*machine) {
		for i := range 2 * maxAddresses {
			binary.BigEndian.PutUint32(m[0].mac[2:], uint32(i))
			m[0].send(broadcast, "x")
		}
		s.mu.Lock()
		n := len(s.table)
		s.mu.Unlock()
		if n != maxAddresses {
			t.Errorf("%d addresses are kept, want %d", n, maxAddresses)
		}
		time.Sleep(addressLife)
		m[1].mac[1] = 1 // one that is not known
		m[1].send(broadcast, "y")
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.table) != 1 {
			t.Errorf("%d addresses are kept after they aged, want 1", len(s.table))
		}
	})
}

func TestALengthThatCannotBeCutsTheCable(t *testing.T) {
	for _, head := range []uint32{0, minFrame - 1, maxFrame + 1, 1 << 31} {
		bench(t, 2, func(s *Switch, m []*machine) {
			if err := binary.Write(m[0].conn, binary.BigEndian, head); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if st := s.Status(); st["a"].Plugged || !st["b"].Plugged {
				t.Errorf("length %d: a is plugged: %v, b: %v; want only b", head, st["a"].Plugged, st["b"].Plugged)
			}
		})
	}
}

func TestCapture(t *testing.T) {
	bench(t, 2, func(s *Switch, m []*machine) {
		var file bytes.Buffer
		c, err := pcap.New(&file, pcap.Ethernet)
		if err != nil {
			t.Fatal(err)
		}
		m[0].send(broadcast, "before")
		s.Capture(c)
		if err := s.SetLink("a", Condition{Loss: 1}); err != nil {
			t.Fatal(err)
		}
		m[0].send(broadcast, "lost but sent")
		s.Capture(nil)
		m[0].send(broadcast, "after")
		const headers = 24 + 16 + 14
		if got := file.Bytes(); len(got) != headers+13 || string(got[headers:]) != "lost but sent" {
			t.Errorf("captured %q, want one frame", got)
		}
	})
}

// brokenDisk takes the head of a file.
type brokenDisk struct{ full bool }

func (d *brokenDisk) Write(b []byte) (int, error) {
	if d.full {
		return 0, io.ErrShortWrite
	}
	d.full = true
	return len(b), nil
}

func TestACaptureThatFailsDoesNotStopTheSwitch(t *testing.T) {
	bench(t, 2, func(s *Switch, m []*machine) {
		c, err := pcap.New(&brokenDisk{}, pcap.Ethernet)
		if err != nil {
			t.Fatal(err)
		}
		s.Capture(c)
		m[0].send(broadcast, "x")
		m[0].send(broadcast, "y")
		if got := m[1].texts(); got != "x y" {
			t.Errorf("heard %q, want %q", got, "x y")
		}
	})
}

// Real sockets, as QEMU has them.
func TestUnixSockets(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler), 1)
	defer s.Close()
	var far [2]net.Conn
	for i := range far {
		l, err := net.Listen("unix", fmt.Sprintf("%s/%d.sock", t.TempDir(), i))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if far[i], err = net.Dial("unix", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		near, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Plug(fmt.Sprint(i), near); err != nil {
			t.Fatal(err)
		}
	}
	frame := append(append([]byte{}, broadcast[:]...), bytes.Repeat([]byte{2}, 1500)...)
	go func() {
		for range 100 {
			_ = writeFrame(far[0], frame) // a failure shows as frames that are missing
		}
	}()
	n := 0
	err := readFrames(far[1], func(f []byte) {
		if !bytes.Equal(f, frame) {
			t.Errorf("frame %d was changed on its way", n)
		}
		if n++; n == 100 {
			far[1].Close()
		}
	})
	if n != 100 {
		t.Errorf("heard %d frames, want 100: %v", n, err)
	}
}

func FuzzReadFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})
	f.Add([]byte{0, 0, 0, 14, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var again bytes.Buffer
		err := readFrames(bytes.NewReader(data), func(frame []byte) {
			if len(frame) < minFrame || len(frame) > maxFrame {
				t.Fatalf("frame of %d octets", len(frame))
			}
			if err := writeFrame(&again, frame); err != nil {
				t.Fatal(err)
			}
		})
		if !bytes.HasPrefix(data, again.Bytes()) {
			t.Error("frames differ from what was sent")
		}
		if err == nil && again.Len() != len(data) {
			t.Errorf("%d of %d octets were taken, without an error", again.Len(), len(data))
		}
	})
}
