package macsec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"

	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
)

var (
	own   = sak.NewSCI(proof.MAC{2, 0, 0, 0, 0, 1})
	peer  = sak.NewSCI(proof.MAC{2, 0, 0, 0, 0, 2})
	third = sak.NewSCI(proof.MAC{2, 0, 0, 0, 0, 3})
)

func key(n byte) sak.Key { return sak.Key{n, 1} }

func assoc(n byte, an uint8) sak.Association {
	return sak.Association{AN: an, Key: key(n), PN: 7}
}

// had is what the kernel says of an association.
func had(n byte) sa { return sa{id: identify(key(n)), pn: 900, active: true} }

func (o op) String() string {
	text := fmt.Sprintf("%s %d", o.kind, o.sa.AN)
	if o.sci != (sak.SCI{}) {
		text += fmt.Sprintf(" of %d", o.sci[5])
	}
	if o.sa.Key != (sak.Key{}) {
		text += fmt.Sprintf(" (%d)", o.sa.Key[0])
	}
	return text
}

func TestPlan(t *testing.T) {
	sends := func(encoding uint8, sas map[uint8]sa) secy {
		return secy{sci: own, encoding: encoding, transmit: sas, receive: map[sak.SCI]channel{}}
	}
	hears := func(c map[sak.SCI]channel) secy {
		return secy{sci: own, transmit: map[uint8]sa{0: had(1)}, receive: c}
	}
	state := func(c ...sak.Channel) sak.State { return sak.State{Transmit: assoc(1, 0), Receive: c} }
	for _, test := range []struct {
		name string
		have secy
		want sak.State
		ops  []string
	}{
		{"made anew", sends(0, nil), state(), []string{"add own key 0 (1)"}},
		{"as it is", sends(0, map[uint8]sa{0: had(1)}), state(), nil},
		{
			"the next key", sends(0, map[uint8]sa{0: had(1)}), sak.State{Transmit: assoc(2, 1)},
			[]string{"add own key 1 (2)", "send by key 1", "drop own key 0"},
		},
		{
			"left by a process, its number used", sends(2, map[uint8]sa{0: had(8), 2: had(9)}), state(),
			[]string{"drop own key 0", "add own key 0 (1)", "send by key 0", "drop own key 2"},
		},
		{
			"one that was put out of use", sends(0, map[uint8]sa{0: {id: identify(key(1)), pn: 5}}), state(),
			[]string{"drop own key 0", "add own key 0 (1)"},
		},
		{
			"a first member", hears(nil), state(sak.Channel{SCI: peer, Associations: []sak.Association{assoc(3, 2)}}),
			[]string{"add channel 0 of 2", "add key of channel 2 of 2 (3)"},
		},
		{
			"one is gone, another came", hears(map[sak.SCI]channel{third: {active: true, sas: map[uint8]sa{1: had(4)}}}),
			state(sak.Channel{SCI: peer, Associations: []sak.Association{assoc(3, 2)}}),
			[]string{"drop channel 0 of 3", "add channel 0 of 2", "add key of channel 2 of 2 (3)"},
		},
		{
			"its next key", hears(map[sak.SCI]channel{peer: {active: true, sas: map[uint8]sa{1: had(3)}}}),
			state(sak.Channel{SCI: peer, Associations: []sak.Association{assoc(3, 1), assoc(4, 2)}}),
			[]string{"add key of channel 2 of 2 (4)"},
		},
		{
			"its dead key", hears(map[sak.SCI]channel{peer: {active: true, sas: map[uint8]sa{1: had(3), 2: had(4)}}}),
			state(sak.Channel{SCI: peer, Associations: []sak.Association{assoc(4, 2)}}),
			[]string{"drop key of channel 1 of 2"},
		},
		{
			"another key by the same number", hears(map[sak.SCI]channel{peer: {active: true, sas: map[uint8]sa{1: had(3)}}}),
			state(sak.Channel{SCI: peer, Associations: []sak.Association{assoc(4, 1)}}),
			[]string{"drop key of channel 1 of 2", "add key of channel 1 of 2 (4)"},
		},
		{
			"a channel that was put out of use", hears(map[sak.SCI]channel{peer: {sas: map[uint8]sa{1: had(3)}}}),
			state(sak.Channel{SCI: peer, Associations: []sak.Association{assoc(3, 1)}}),
			[]string{"drop channel 0 of 2", "add channel 0 of 2", "add key of channel 1 of 2 (3)"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, o := range plan(test.have, test.want) {
				got = append(got, o.String())
			}
			if !slices.Equal(got, test.ops) {
				t.Errorf("expected %q, got %q", test.ops, got)
			}
		})
	}
}

func TestCount(t *testing.T) {
	i := &Interface{last: map[sak.SCI]tally{}}
	at := func(invalid uint64, c map[sak.SCI]tally) secy {
		s := secy{sci: own, invalid: invalid, receive: map[sak.SCI]channel{}}
		for sci, n := range c {
			s.receive[sci] = channel{tally: n}
		}
		return s
	}
	for _, step := range []struct {
		have secy
		want Counters
	}{
		{at(1, map[sak.SCI]tally{peer: {2, 3}}), Counters{2, 4}},
		{at(1, map[sak.SCI]tally{peer: {2, 3}}), Counters{2, 4}},
		{at(2, map[sak.SCI]tally{peer: {5, 3}, third: {1, 1}}), Counters{6, 6}},
		{at(2, map[sak.SCI]tally{third: {1, 1}}), Counters{6, 6}},
		{at(2, map[sak.SCI]tally{peer: {1, 0}, third: {1, 1}}), Counters{7, 6}}, // it came back
		{at(2, map[sak.SCI]tally{peer: {0, 4}, third: {1, 1}}), Counters{7, 10}},
	} {
		if i.count(step.have); i.sum != step.want {
			t.Errorf("expected %+v, got %+v", step.want, i.sum)
		}
	}
}

func TestName(t *testing.T) {
	for port, want := range map[string]string{"eth0": "macsec-eth0", "enp1s0f0": "macsec-enp1s0f0", "enp10s0f0": "macsec-77", "enxb827eb123456": "macsec-77"} {
		if got := Name(port, 77); got != want || len(got) > 15 {
			t.Errorf("%s: expected %s, got %s", port, want, got)
		}
	}
}

// answer is what the kernel says of an interface, by the order of the kernel's own
// code (drivers/net/macsec.c, dump_secy).
func answer() []byte {
	list := func(kind int, parts ...*nl.RtAttr) *nl.RtAttr {
		a := nl.NewRtAttr(kind, nil)
		for _, p := range parts {
			a.AddChild(p)
		}
		return a
	}
	u8 := func(kind int, v uint8) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint8Attr(v)) }
	u32 := func(kind int, v uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(v)) }
	u64 := func(kind int, v uint64) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint64Attr(v)) }
	one, two := identify(key(1)), identify(key(3))
	var b []byte
	for _, a := range []*nl.RtAttr{
		u32(attrIfindex, 12),
		list(attrSecy,
			nl.NewRtAttr(secySCI, own[:]), u64(secySuite, suiteDefault), u8(secyICVLen, icvLen), u8(secyOper, 1), u8(secyProtect, 1),
			u8(secyReplay, 1), u8(secyValidate, validateStrict), u8(secyEncrypt, 1), u8(secyIncludeSCI, 1), u8(12, 0), u8(13, 0),
			u8(secyEncoding, 1), u32(secyWindow, window)),
		list(7, u64(1, 1), u64(2, 2)),
		list(attrSecyStats, u64(1, 100), u64(2, 100), u64(4, 100), u64(statBadTag, 1), u64(statUnknownSCI, 2), u64(statNoSCI, 3), u64(statOverrun, 4)),
		list(attrTxSAs, list(1, u8(saAN, 1), u32(saPN, 900), nl.NewRtAttr(saKeyID, one[:]), u8(saActive, 1), list(6, u32(6, 1), u32(7, 9)))),
		list(attrRxSCs, list(1, u8(rxscActive, 1), nl.NewRtAttr(rxscSCI, peer[:]),
			list(rxscStats, u64(1, 50), u64(5, 60), u64(statDelayed, 1), u64(statInvalid, 2), u64(statLate, 3), u64(statNotValid, 4), u64(statNotUsing, 5), u64(statUnused, 6)),
			list(rxscSAs, list(1, u8(saAN, 2), list(6, u32(1, 5)), u32(saPN, 77), nl.NewRtAttr(saKeyID, two[:]), u8(saActive, 1))))),
	} {
		b = append(b, a.Serialize()...)
	}
	return b
}

func TestParse(t *testing.T) {
	got, err := parse(answer())
	if err != nil {
		t.Fatal(err)
	}
	want := secy{
		index: 12, sci: own, encoding: 1, window: window, suite: suiteDefault, icv: icvLen, protect: true, replay: true, operational: true,
		validate: validateStrict, encrypt: true, includeSCI: true, invalid: 10,
		transmit: map[uint8]sa{1: had(1)},
		receive: map[sak.SCI]channel{peer: {active: true, tally: tally{late: 4, invalid: 17}, sas: map[uint8]sa{
			2: {id: identify(key(3)), pn: 77, active: true},
		}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(secy{}, sa{}, channel{}, tally{})); diff != "" {
		t.Errorf("expected that of the first, got that of the second:\n%s", diff)
	}
	if err := got.suits(own); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*secy){
		"another channel":      func(s *secy) { s.sci = peer },
		"not encrypted":        func(s *secy) { s.encrypt = false },
		"not protected":        func(s *secy) { s.protect = false },
		"not strict":           func(s *secy) { s.validate = 1 },
		"replay not looked at": func(s *secy) { s.replay = false },
		"another window":       func(s *secy) { s.window = 1 << 20 },
		"another cipher":       func(s *secy) { s.suite++ },
		"a short check value":  func(s *secy) { s.icv = 8 },
	} {
		s := got
		if change(&s); s.suits(own) == nil {
			t.Errorf("%s: expected it not to suit", name)
		}
	}
}

func TestKeysAreNotTold(t *testing.T) {
	i := &Interface{name: "macsec-eth0", spent: map[keyID]bool{identify(key(0xab)): true}}
	err := i.do(op{kind: addTransmit, sa: assoc(0xab, 3)})
	if err == nil || strings.Contains(err.Error(), "ab01") || strings.Contains(err.Error(), "171") {
		t.Errorf("sending by a key again: expected an error without the key, got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(answer())
	f.Add(answer()[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err != nil {
			return
		}
		// Whatever the kernel holds, the plan is finite and does not fail.
		if ops := plan(s, sak.State{Transmit: assoc(1, 1)}); len(ops) > 1000 {
			t.Errorf("%d steps", len(ops))
		}
	})
}
