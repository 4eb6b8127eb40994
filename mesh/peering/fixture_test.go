package peering

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// fixture is a run of two wpa_supplicants 2.10: the mesh peering frames as the
// air had them, with the keys that were logged. All are of tests.
type fixture struct {
	Name     string
	SSID     string
	MACs     map[string]string
	Sessions []struct {
		Side, PMK, PMKID string
		AEK              string `json:"aek_derived"`
	}
	GroupKeys map[string]struct{ MGTK, IGTK []string } `json:"group_keys"`
	Peerings  []struct {
		PMKID, MTK string
		NonceA     string `json:"nonce_a"`
		NonceB     string `json:"nonce_b"`
		LinkA      uint16 `json:"lid_a"`
		LinkB      uint16 `json:"lid_b"`
	}
	Frames []struct {
		Dir, Kind string
		Hex       string
		AEK       string
		AMPE      string
	}
}

func fixtures(t testing.TB) []*fixture {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	var list []*fixture
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var x fixture
		if err := json.Unmarshal(b, &x); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		list = append(list, &x)
	}
	return list
}

func (x *fixture) mac(t testing.TB, side string) dot11.MAC {
	t.Helper()
	m, err := net.ParseMAC(x.MACs[side[:1]])
	if err != nil {
		t.Fatal(err)
	}
	return dot11.MAC(m)
}

func (x *fixture) pmk(t testing.TB, id string) (pmk sae.PMK) {
	t.Helper()
	for _, s := range x.Sessions {
		if s.PMKID == id {
			return sae.PMK(fromHex(t, s.PMK))
		}
	}
	t.Fatalf("%s: no session %s", x.Name, id)
	return
}

func TestRecordedKeys(t *testing.T) {
	sessions, peerings := 0, 0
	for _, x := range fixtures(t) {
		a, b := x.mac(t, "a"), x.mac(t, "b")
		for _, s := range x.Sessions {
			pmk := sae.PMK(fromHex(t, s.PMK))
			if aek := deriveAEK(&pmk, a, b); hex.EncodeToString(aek[:]) != s.AEK {
				t.Errorf("%s: AEK: expected %s, got %x", x.Name, s.AEK, aek)
			}
			sessions++
		}
		for _, p := range x.Peerings {
			pmk := x.pmk(t, p.PMKID)
			left, right := side{a, nonce(fromHex(t, p.NonceA)), p.LinkA}, side{b, nonce(fromHex(t, p.NonceB)), p.LinkB}
			for _, mtk := range []Key{deriveMTK(&pmk, left, right), deriveMTK(&pmk, right, left)} {
				if hex.EncodeToString(mtk[:]) != p.MTK {
					t.Errorf("%s: MTK: expected %s, got %x", x.Name, p.MTK, mtk[:])
				}
			}
			peerings++
		}
	}
	if sessions != 42 || peerings != 9 {
		t.Errorf("expected 42 sessions and 9 peerings, got %d and %d", sessions, peerings)
	}
}

// TestRecordedFrames reads and decrypts every frame, compares the plaintext
// with the log, and builds and encrypts it again to the same octets.
func TestRecordedFrames(t *testing.T) {
	kinds := map[string]int{}
	for _, x := range fixtures(t) {
		for i, r := range x.Frames {
			frame := fromHex(t, r.Hex)
			h, body, err := dot11.ParseManagement(frame)
			if err != nil {
				t.Fatalf("%s frame %d: %v", x.Name, i, err)
			}
			m, err := parse(body)
			if err != nil {
				t.Fatalf("%s frame %d: %v", x.Name, i, err)
			}
			kinds[r.Kind]++
			s := newSIV((*[sivKeySize]byte)(fromHex(t, r.AEK)))
			plain, err := s.open(m.mic, m.ciphertext, h.From[:], h.To[:], m.clear)
			if err != nil || hex.EncodeToString(plain) != r.AMPE {
				t.Errorf("%s frame %d: expected AMPE %s, got %x %v", x.Name, i, r.AMPE, plain, err)
			}
			if _, err := m.unseal(s, true, h); !errors.Is(err, errForged) {
				t.Errorf("%s frame %d: opens with Morse's short associated data", x.Name, i)
			}
			swapped := dot11.Header{Subtype: h.Subtype, To: h.From, From: h.To}
			if _, err := m.unseal(s, false, swapped); !errors.Is(err, errForged) {
				t.Errorf("%s frame %d: opens with addresses swapped", x.Name, i)
			}
			a, err := m.unseal(s, false, h)
			if strings.Trim(r.AEK, "0") == "" {
				// Sent by wpa_supplicant under no key at all: zeros are no nonce.
				if err == nil {
					t.Errorf("%s frame %d: nonces of zero are taken", x.Name, i)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s frame %d: %v", x.Name, i, err)
			}
			if want := map[string]int{"mpm-open": 122, "mpm-confirm": 70, "mpm-close": 70}[r.Kind]; len(a.append()) != want && (x.Name != "mfp0" || len(a.append()) != 98 && want == 122) {
				t.Errorf("%s frame %d: AMPE of %d octets", x.Name, i, len(a.append()))
			}
			again := seal(s, false, h, m.build(elementsOf(t, m)), &a)
			copy(again, frame[:4])           // flags and duration are the radio's
			copy(again[22:24], frame[22:24]) // so is the sequence number
			if !bytes.Equal(again, frame) {
				t.Errorf("%s frame %d:\nexpected %x\ngot      %x", x.Name, i, frame, again)
			}
		}
	}
	if kinds["mpm-open"] != 112 || kinds["mpm-confirm"] != 64 || kinds["mpm-close"] != 61 {
		t.Errorf("expected 112 Opens, 64 Confirms, 61 Closes; got %v", kinds)
	}
}

// elementsOf takes from a frame what a station says of itself.
func elementsOf(t testing.TB, m *message) *elements {
	t.Helper()
	if m.action == closing {
		return nil
	}
	el := &elements{}
	rest := m.clear[map[action]int{open: 4, confirm: 6}[m.action]:]
	for behind := false; len(rest) > 0; {
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.ID == dot11.SupportedRates:
			el.rates = e.Body
		case e.ID == dot11.ExtendedSupportedRates:
			el.extendedRates = e.Body
		case e.ID == dot11.MeshPeeringManagement:
			behind = true
		case behind:
			el.trailing = append(el.trailing, rest[:len(rest)-len(after)]...)
		}
		rest = after
	}
	return el
}

// TestRecordedExchangeDrivesEngine gives an engine the randomness of one side
// and the frames of the other, in the order of the air. It has to say what that
// side said, octet for octet, and come to the same key.
func TestRecordedExchangeDrivesEngine(t *testing.T) {
	for _, x := range fixtures(t) {
		if len(x.Peerings) != 1 || len(x.Sessions) != 2 {
			continue
		}
		for _, us := range []string{"a", "b"} {
			t.Run(x.Name+" "+us, func(t *testing.T) { x.drive(t, us) })
		}
	}
}

func (x *fixture) drive(t *testing.T, us string) {
	them := map[string]string{"a": "b", "b": "a"}[us]
	p := x.Peerings[0]
	link, n := p.LinkA, p.NonceA
	if us == "b" {
		link, n = p.LinkB, p.NonceB
	}
	c := Config{
		Own: x.mac(t, us), MeshID: []byte(x.SSID), Forwarding: true, Timing: HaLow,
		MFP:  map[string]MFP{"mfp0": MFPOff, "mfp1": MFPOptional}[x.Name],
		Rand: bytes.NewReader(append(binary.LittleEndian.AppendUint16(nil, link), fromHex(t, n)...)),
	}
	c.Group.MGTK = Key(fromHex(t, x.GroupKeys[us].MGTK[0]))
	c.Group.IGTK = Key{1}
	if c.MFP != MFPOff {
		c.Group.IGTK = Key(fromHex(t, x.GroupKeys[us].IGTK[0]))
	}
	sent := map[string]bool{} // by us, without header
	var answers, closes bool  // our first Open answers theirs; they closed
	for _, r := range x.Frames {
		b := fromHex(t, r.Hex)[dot11.HeaderSize:]
		if r.Dir[:1] != us {
			closes = closes || r.Kind == "mpm-close"
			continue
		}
		if len(sent) == 0 {
			answers = !bytes.Equal(fromHex(t, r.AMPE)[6+nonceSize:6+2*nonceSize], make([]byte, nonceSize))
		}
		sent[string(b)] = true
		if m, err := parse(b); err == nil && m.action == open && c.Rates == nil {
			el := elementsOf(t, m)
			c.Rates, c.ExtendedRates, c.Trailing = el.rates, el.extendedRates, el.trailing
			plain := fromHex(t, r.AMPE)
			copy(c.Group.RSC[:], plain[2+ampeFixed+keySize:])
			if c.MFP != MFPOff {
				copy(c.Group.IPN[:], plain[2+ampeFixed+groupSize+2:])
			}
		}
	}
	now := time.Unix(1_800_000_000, 0)
	e, err := New(c, now)
	if err != nil {
		t.Fatal(err)
	}
	peer := x.mac(t, them)
	if err := e.Offer(now, peer, 1, sae.PMKID(fromHex(t, p.PMKID)), x.pmk(t, p.PMKID)); err != nil {
		t.Fatal(err)
	}
	if !answers {
		if err := e.Connect(now, peer); err != nil {
			t.Fatal(err)
		}
	}
	var established *Event
	check := func() {
		frames, events := e.Take()
		for _, f := range frames {
			if body := f.Bytes[dot11.HeaderSize:]; !sent[string(body)] {
				// wpa_supplicant sent its own Close for its own reason.
				if m, err := parse(body); err != nil || m.action != closing {
					t.Errorf("%s did not send %v %x", us, m.action, body)
				}
			}
		}
		for _, ev := range events {
			switch ev.Kind {
			case Established:
				established = &ev
			case Mismatch, Unverified, UnknownKey, Failed:
				t.Errorf("%+v", ev)
			}
		}
	}
	check()
	for _, r := range x.Frames {
		if r.Dir[:1] != us {
			e.Handle(now, fromHex(t, r.Hex))
			check()
		}
	}
	if established == nil {
		t.Fatal("no link")
	}
	if k := established.Keys; hex.EncodeToString(k.MTK[:]) != p.MTK || hex.EncodeToString(k.Peer.MGTK[:]) != x.GroupKeys[them].MGTK[0] {
		t.Errorf("MTK or MGTK differ from the log")
	}
	if established.AID != 1 || established.Keys.Protected == (c.MFP == MFPOff) {
		t.Errorf("%+v", established)
	}
	if closes == (e.State(peer) == Estab) {
		t.Error("the recorded Close was not honoured")
	}
}
