package server

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"halo.internal/model"
)

func records() []record {
	return []record{
		{Address: netip.MustParseAddr("10.43.7.10"), MAC: "02:00:00:00:00:01", ClientID: "0102", Hostname: "phone", Name: "phone", Seconds: 3600},
		{Address: netip.MustParseAddr("10.43.7.11"), MAC: "02:00:00:00:00:02", Seconds: 450, Ended: true},
		{Address: netip.MustParseAddr("10.43.7.12"), MAC: "02:00:00:00:00:03", Hostname: "phone", Name: "phone-2", Seconds: 3600},
	}
}

func TestDamagedFile(t *testing.T) {
	whole := encode(records())
	got, bad := decode(whole)
	if bad != 0 || !slices.Equal(got, records()) {
		t.Fatalf("expected what was written, got %+v and %d bad", got, bad)
	}
	// Each single bit that rots costs its line, or the two that it joins.
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			got, bad := decode(b)
			if len(got) < len(records())-2 || bad == 0 && !slices.Equal(got, records()) {
				t.Fatalf("octet %d, bit %d: %d records are left, %d bad", i, bit, len(got), bad)
			}
			for _, r := range got {
				if !slices.Contains(records(), r) {
					t.Fatalf("octet %d, bit %d: made %+v of it", i, bit, r)
				}
			}
		}
	}
	for n := range whole {
		got, _ := decode(whole[:n])
		if !slices.Equal(got, records()[:len(got)]) || len(got) < bytes.Count(whole[:n], []byte("\n")) {
			t.Fatalf("torn after %d octets: got %+v", n, got)
		}
	}
	twice := append(records(), record{Address: records()[0].Address, MAC: "02:00:00:00:00:09", Seconds: 60})
	if got, bad := decode(encode(twice)); bad != 2 || len(got) != 2 {
		t.Errorf("one address for two: expected neither, got %+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(records()))
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := decode(b)
		e := newEngine(config())
		e.restore(time.Now(), list)
		for a, l := range e.byAddr {
			if !e.allowed(l.client, a) || l.granted > LongestLease {
				t.Errorf("took up %+v", l)
			}
		}
	})
}

func TestRestart(t *testing.T) {
	c := config()
	c.File = filepath.Join(t.TempDir(), "leases")
	b := newBench(t, c)
	kept, ended := b.lease(1, name("phone")), b.lease(2)
	b.lease(3, name("phone"))
	b.say(2, dhcpv4.MessageTypeRelease, has(ended), server(self))
	s := &Server{c: c, e: b.e}
	if err := os.WriteFile(c.File, s.snapshot(), 0o600); err != nil {
		t.Fatal(err)
	}
	// The clock does not matter: an hour's lease is one of an hour, however long the
	// power was off.
	again, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	list := again.Leases()
	if len(list) != 2 || list[0].Heard || list[1].Heard {
		t.Fatalf("expected two leases that are not heard of yet, got %+v", list)
	}
	for _, l := range list {
		if left := time.Until(l.Expires); left < 59*time.Minute || left > time.Hour {
			t.Errorf("%s: expected an hour, got %s", l.Address, left)
		}
	}
	b.e, b.now = again.e, time.Now()
	b.want(b.e.byClient[client{mac: mac(hw(3))}].name, "phone-2")
	b.dirty = false
	b.want(b.say(1, request, has(kept), name("phone")), "ACK "+kept)
	if b.dirty {
		t.Error("a renewal wants to be written")
	}
	b.want(b.lease(2), ended)

	// A network that is another now keeps none of them, and hosts are moved over.
	c.Address = netip.MustParsePrefix("10.43.9.1/24")
	c.First, c.Last = netip.MustParseAddr("10.43.9.10"), netip.MustParseAddr("10.43.9.19")
	c.Options = Options{}
	moved, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if l := moved.Leases(); len(l) != 0 {
		t.Errorf("expected no lease of another network, got %+v", l)
	}
	b.e = moved.e
	b.want(b.say(1, request, has(kept)), "NAK")
}

func TestNobodyIsHeardAfterTheRestart(t *testing.T) {
	b := newBench(t, config())
	list := make([]record, 10)
	for i := range list {
		list[i] = record{Address: address(number(b.e.c.First) + uint32(i)), MAC: hw(i).String(), Seconds: 3600}
	}
	b.e.restore(b.now, list)
	b.want(b.say(1, request, has("10.43.7.11")), "ACK 10.43.7.11")
	b.want(b.say(50, discover), "")
	b.wantEvents(EventExhausted)
	b.now = b.now.Add(40 * time.Minute) // a host that is there has renewed
	b.want(b.say(50, discover), "OFFER 10.43.7.10")
	b.want(b.say(51, discover), "OFFER 10.43.7.12")
	b.want(b.say(1, request, has("10.43.7.11")), "ACK 10.43.7.11")
}

func TestUnreadableFileIsToldAndNoEnd(t *testing.T) {
	c := config()
	c.File = filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(c.File, append(encode(records()), "rot\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Leases()); n != 2 {
		t.Errorf("expected the two leases that are whole, got %d", n)
	}
	if ev := s.e.take().events; len(ev) != 1 || ev[0].Kind != EventStore || !strings.Contains(ev[0].Message, "1 of 4 lines") {
		t.Errorf("expected the event %s, got %+v", EventStore, ev)
	}
}

func TestWritesAreFew(t *testing.T) {
	c := config()
	c.File = "/nowhere"
	var events []model.Event
	c.Notify = func(e model.Event) { events = append(events, e) }
	k := newKeeper(c)
	start := time.Now()
	writes := 0
	for now := start; now.Before(start.Add(24 * time.Hour)); now = now.Add(5 * time.Second) {
		k.note(now) // something changes all the time
		if due := k.due(); !due.IsZero() && !now.Before(due) {
			writes++
			k.busy, k.changed = true, time.Time{}
			k.wrote(now, nil)
		}
	}
	if writes > 60 {
		t.Errorf("expected at most 60 writes in a day of changes, got %d", writes)
	}
	// After quiet, it is soon again.
	k.changed = time.Time{}
	now := start.Add(48 * time.Hour)
	k.note(now)
	if wait := k.due().Sub(now); wait != c.timing.saveFirst {
		t.Errorf("expected the first change written after %s, got %s", c.timing.saveFirst, wait)
	}
	k.wrote(now, errors.New("disk full"))
	k.wrote(now, errors.New("disk full"))
	if len(events) != 1 || events[0].Kind != EventStore {
		t.Errorf("expected one event, got %+v", events)
	}
}
