//go:build lab

package radio_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
)

// supplicant is a member whose authentication and peering are wpa_supplicant's.
type supplicant struct {
	l      *lab
	id     int // of the simulated radio
	iface  string
	mac    net.HardwareAddr
	config string
	log    string
	pid    int
	cancel context.CancelFunc
	ended  chan error
}

// supplicant starts wpa_supplicant on a radio of its own. network is what its
// network block holds besides the mesh's name and channel.
func (l *lab) supplicant(channel nl80211.Channel, network string) *supplicant {
	l.t.Helper()
	s := l.prepare(channel, "", network)
	s.start()
	return s
}

// prepare makes radio, interface and settings for one that is to start. global
// is what its settings hold besides.
func (l *lab) prepare(channel nl80211.Channel, global, network string) *supplicant {
	l.t.Helper()
	w, id := l.wiphy()
	s := &supplicant{l: l, id: id, iface: fmt.Sprintf("wpa%d", l.made)}
	i, err := l.conn.NewInterface(w.Index, s.iface, nl80211.MeshPoint, nil)
	l.ok(err)
	s.mac = i.MAC
	dir := l.t.TempDir()
	s.config, s.log = filepath.Join(dir, "wpa.conf"), filepath.Join(dir, "wpa.log")
	if !strings.Contains(network, "psk=") {
		network += fmt.Sprintf("\tpsk=%q\n", password)
	}
	l.ok(os.WriteFile(s.config, fmt.Appendf(nil, `user_mpm=1
sae_groups=19
%snetwork={
	ssid=%q
	mode=5
	frequency=%d
	scan_freq=%d
	key_mgmt=SAE
	pairwise=CCMP
	group=CCMP
%s}
`, global, meshID, channel.FreqMHz, channel.FreqMHz, network), 0o600))
	l.t.Cleanup(func() {
		if l.t.Failed() {
			text, _ := os.ReadFile(s.log)
			l.t.Logf("--- %s\n%s", s.iface, text[max(0, len(text)-6000):])
		}
	})
	return s
}

func (s *supplicant) start() {
	s.l.t.Helper()
	ctx, cancel := context.WithCancel(s.l.ctx)
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	s.l.ok(err)
	c := exec.CommandContext(ctx, "wpa_supplicant", "-t", "-D", "nl80211", "-i", s.iface, "-c", s.config)
	c.Stdout, c.Stderr = out, out
	s.l.ok(c.Start())
	s.pid = c.Process.Pid
	s.cancel, s.ended = cancel, make(chan error, 1)
	go func(ended chan<- error) { ended <- c.Wait(); out.Close() }(s.ended)
	s.l.t.Cleanup(s.kill)
}

// kill ends it without a word to anybody.
func (s *supplicant) kill() {
	s.cancel()
	err := <-s.ended
	s.ended <- err
}

func (s *supplicant) end() end { return end{s.iface, s.mac} }

// hunting is how wpa_supplicant 2.10 finds the password element on a mesh.
func hunting(mfp peering.MFP, more ...func(*radio.Config)) func(*radio.Config) {
	return func(c *radio.Config) {
		c.Method, c.MFP = sae.HuntingAndPecking, mfp
		for _, change := range more {
			change(c)
		}
	}
}

func (l *lab) linkTo(m *member, s *supplicant) {
	l.t.Helper()
	l.until(m.iface+" and "+s.iface+" have a link", func() bool { return l.linked(m.iface, s.mac) && l.linked(s.iface, m.mac) })
}

// both carries unicast and multicast frames in both directions.
func (l *lab) both(a, b end) {
	l.t.Helper()
	l.carry(a, b)
	l.carry(b, a)
}

func TestInteroperation(t *testing.T) {
	const (
		off, optional, required = "\tieee80211w=0\n", "\tieee80211w=1\n", "\tieee80211w=2\n"

		// Who beacons rarely is not found, and so is not asked by the other.
		rare = 10000
	)
	for _, tc := range []struct {
		name    string
		channel nl80211.Channel
		change  func(*radio.Config)
		network string
	}{
		{"MFP off", channel1, hunting(peering.MFPOff), off},
		{"MFP optional", channel1, hunting(peering.MFPOptional), optional},
		{"MFP required", channel1, hunting(peering.MFPRequired), required},
		{"MFP required here, optional there", channel1, hunting(peering.MFPRequired), optional},
		{"MFP optional here, required there", channel1, hunting(peering.MFPOptional), required},
		{"5 GHz", channel36, hunting(peering.MFPRequired), required},
		{"5 GHz, MFP off", channel36, hunting(peering.MFPOff), off},
		{"we begin", channel1, hunting(peering.MFPRequired, func(c *radio.Config) { c.BeaconInterval = rare }), required},
		{"the other begins", channel1, hunting(peering.MFPRequired), required + "\tbeacon_int=10000\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			if tc.channel == channel36 {
				l.country("DE")
			}
			m := l.member(func(c *radio.Config) { tc.change(c); c.Channel = tc.channel })
			s := l.supplicant(tc.channel, tc.network)
			start := time.Now()
			l.linkTo(m, s)
			t.Logf("a link after %.2f s", time.Since(start).Seconds())
			l.both(m.end(), s.end())
		})
	}
}

// TestInteroperationRefused has policies meet of which none can be a link: this
// side refuses, and says why.
func TestInteroperationRefused(t *testing.T) {
	for _, tc := range []struct {
		name    string
		mfp     peering.MFP
		network string
		why     string
	}{
		{"MFP off here, required there", peering.MFPOff, "\tieee80211w=2\n", "the peer demands protected management frames"},
		{"MFP required here, off there", peering.MFPRequired, "\tieee80211w=0\n", "the peer does not protect management frames"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			m, s := l.member(hunting(tc.mfp)), l.supplicant(channel1, tc.network)
			start := time.Now()
			l.until("a refusal is told of", func() bool {
				for _, e := range m.told(radio.EventPeerRefused) {
					if strings.Contains(e.Fields["reason"], tc.why) && e.Fields["mac"] == s.mac.String() {
						return true
					}
				}
				return false
			})
			t.Logf("refused after %.2f s", time.Since(start).Seconds())
			if l.linked(m.iface, s.mac) {
				t.Error("there is a link all the same")
			}
		})
	}
}

// country has the kernel follow a country's rules.
func (l *lab) country(code string) {
	l.t.Helper()
	l.ok(l.conn.SetCountry(code))
	l.until("the rules of "+code, func() bool {
		r, err := l.conn.Regulatory()
		l.ok(err)
		return r.Country == code
	})
}

func TestInteroperationAfterRestarts(t *testing.T) {
	l := newLab(t)
	change := hunting(peering.MFPRequired)
	m, s := l.member(change), l.supplicant(channel1, "\tieee80211w=2\n")
	l.linkTo(m, s)
	l.both(m.end(), s.end())

	s.kill()
	s.start()
	l.until("the other's new start is told of", func() bool { return len(m.told(radio.EventPeer))+len(m.told(radio.EventPeerAgain)) >= 2 })
	l.linkTo(m, s)
	l.both(m.end(), s.end())

	if err := m.stop(); err != nil {
		t.Errorf("end: %v", err)
	}
	l.until("the other knows of our end", func() bool { return !l.linked(s.iface, m.mac) })
	l.run(m, l.wiphyOf(m), change)
	l.linkTo(m, s)
	l.both(m.end(), s.end())
}

func TestInteroperationWithAnotherPassword(t *testing.T) {
	l := newLab(t)
	m := l.member(hunting(peering.MFPRequired))
	s := l.supplicant(channel1, "\tieee80211w=2\n\tpsk=\"another password\"\n")
	l.until("that is told of", func() bool {
		for _, e := range m.told(radio.EventPeerRefused) {
			if strings.Contains(e.Message, sae.ErrPassword.Error()) && e.Fields["mac"] == s.mac.String() {
				return true
			}
		}
		return false
	})
	l.until("it is counted", func() bool { return m.Dropped().SAE.Unverified > 0 })
	if l.linked(m.iface, s.mac) || l.linked(s.iface, m.mac) {
		t.Error("there is a link all the same")
	}
	// A member with the password is not kept out by that.
	other := l.member(hunting(peering.MFPRequired))
	l.link(m, other)
	l.both(m.end(), other.end())
}

func TestInteroperationOfThree(t *testing.T) {
	l := newLab(t)
	m := l.member(hunting(peering.MFPRequired))
	a, b := l.supplicant(channel1, "\tieee80211w=2\n"), l.supplicant(channel1, "\tieee80211w=2\n")
	other := l.member(hunting(peering.MFPRequired))
	l.link(m, other)
	for _, s := range []*supplicant{a, b} {
		l.linkTo(m, s)
		l.linkTo(other, s)
		l.both(m.end(), s.end())
	}
	l.both(m.end(), other.end())
}

// TestInteroperationInBadAir loses three of ten attempts, and of all frames to
// many those.
func TestInteroperationInBadAir(t *testing.T) {
	l := newLab(t)
	l.badAir(2, 0.3)
	m, s := l.member(hunting(peering.MFPRequired)), l.supplicant(channel1, "\tieee80211w=2\n")
	l.linkTo(m, s)
	l.both(m.end(), s.end())
}

// TestInteroperationInDisorder has both make a link again and again, each side
// restarted in turn, until frames have come twice and late in both directions.
// When order is restored, the link that there is has to stand.
//
// wpa_supplicant gives up a link after 120 ms and authenticates anew: a host that has
// little time for the machine, and replays on top, would leave it no chance of any.
func TestInteroperationInDisorder(t *testing.T) {
	const patient = "\tdot11MeshRetryTimeout=200\n\tdot11MeshConfirmTimeout=200\n"
	for _, tc := range []struct {
		name    string
		mfp     peering.MFP
		network string
		d       air.Disorder
	}{
		{"MFP off", peering.MFPOff, "\tieee80211w=0\n", disorder},
		// One kind each, so that none hides behind another.
		{"retransmitted", peering.MFPRequired, "\tieee80211w=2\n", air.Disorder{Retransmitted: 0.5}},
		{"replayed", peering.MFPRequired, "\tieee80211w=2\n", air.Disorder{Replayed: 0.5, Delay: disorder.Delay}},
		{"late", peering.MFPRequired, "\tieee80211w=2\n", air.Disorder{Late: 0.5, Delay: disorder.Delay}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			sky := l.disorderedAir(2, tc.d)
			change := hunting(tc.mfp)
			m, s := l.member(change), l.supplicant(channel1, tc.network+patient)
			links := 0
			link := func() {
				t.Helper()
				links++
				start := time.Now()
				l.linkTo(m, s)
				t.Logf("a link after %.2f s", time.Since(start).Seconds())
				l.both(m.end(), s.end())
			}
			link()
			for round := 0; round < 1 || !occurred(sky, 2, tc.d); round++ {
				if round == 20 {
					t.Fatalf("after %d rounds: %+v", round, sky.Counters())
				}
				told := func() int { return len(m.told(radio.EventPeer)) + len(m.told(radio.EventPeerAgain)) }
				before := told()
				s.kill()
				s.start()
				l.until("the other's new start is told of", func() bool { return told() > before })
				link()

				before = told()
				if err := m.stop(); err != nil {
					t.Errorf("end: %v", err)
				}
				l.run(m, l.wiphyOf(m), change)
				l.until("a link after our new start is told of", func() bool { return told() > before })
				link()
			}
			t.Logf("%+v; dropped since the last start: %+v", sky.Counters(), m.Dropped())

			l.setDisorder(sky, 2, air.Disorder{})
			link()
			lost := len(m.told(radio.EventPeerLost))
			time.Sleep(5 * time.Second) // that nothing happens in so long is the test
			if got := len(m.told(radio.EventPeerLost)); got != lost {
				t.Errorf("the link is over, with all frames in order: %+v", m.told(radio.EventPeerLost)[lost:])
			}
			l.both(m.end(), s.end())
		})
	}
}

// TestInteroperationAfterKills ends this side without a word to the other.
func TestInteroperationAfterKills(t *testing.T) {
	l := newLab(t)
	w, _ := l.wiphy()
	c := childConfig{Wiphy: w.Index, Iface: "child", FreqMHz: channel1.FreqMHz, Method: sae.HuntingAndPecking}
	there := l.startChild(c)
	s := l.supplicant(channel1, "\tieee80211w=2\n")
	whole := func() {
		t.Helper()
		l.until("a link", func() bool { return there.begun() && l.paired("child", s.iface) })
		l.both(end{"child", l.mac("child")}, s.end())
	}
	for range 3 {
		whole()
		there.kill()
		there = l.startChild(c)
	}
	whole()
	there.kill()
}

// TestInteroperationStands asks again and again whether the other has the link
// too: it answers, and the link stands. Whoever is killed is found out so.
func TestInteroperationStands(t *testing.T) {
	l := newLab(t)
	const check = 3 * time.Second
	m := l.member(hunting(peering.MFPRequired, func(c *radio.Config) { c.Peering = peering.Wifi; c.Peering.Check = check }))
	s := l.supplicant(channel1, "\tieee80211w=2\n")
	l.linkTo(m, s)
	// wpa_supplicant gives up after a quarter of a second, and closes a link that only
	// this side had yet: what came before both have it is not the question.
	before := len(m.told(radio.EventPeerLost))
	time.Sleep(4 * check) // that nothing happens in so long is the test
	if lost := m.told(radio.EventPeerLost)[before:]; len(lost) != 0 {
		t.Errorf("the link is over: %+v", lost)
	}
	l.both(m.end(), s.end())
}
