package sae

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"halo.internal/model/dot11"
)

// fixture is a run of two wpa_supplicants 2.10 with hunting and pecking, its
// frames as the air had them and its secrets as they logged them. All keys and
// passwords are of tests.
type fixture struct {
	Name     string
	SSID     string
	Password map[string]string
	MACs     map[string]string
	Sessions []struct {
		Side       string
		PWE        string
		Rand, Mask string
		Scalar     string
		EX, EY     string
		PeerScalar string `json:"peer_scalar"`
		PEX, PEY   string
		K, KCK     string
		PMK, PMKID string
	}
	Frames []recorded
}

type recorded struct {
	Dir  string // "a>b"
	Kind string
	Hex  string
}

func (r recorded) sae() bool                   { return r.Kind == "sae-commit" || r.Kind == "sae-confirm" }
func (r recorded) bytes(t testing.TB) []byte   { t.Helper(); return fromHex(t, r.Hex) }
func (x *fixture) password(side string) []byte { return []byte(x.Password[side[:1]]) }

func (x *fixture) mac(t testing.TB, side string) dot11.MAC {
	t.Helper()
	m, err := net.ParseMAC(x.MACs[side[:1]])
	if err != nil {
		t.Fatal(err)
	}
	return dot11.MAC(m)
}

func other(side string) string {
	if side[:1] == "a" {
		return "b"
	}
	return "a"
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

// TestRecordedSessions derives every secret that wpa_supplicant logged.
func TestRecordedSessions(t *testing.T) {
	checked := 0
	for _, x := range fixtures(t) {
		for _, s := range x.Sessions {
			pwe, err := hunt(x.password(s.Side), x.mac(t, s.Side), x.mac(t, other(s.Side)))
			if err != nil {
				t.Fatal(err)
			}
			want(t, x.Name+" PWE", pwe.Bytes()[1:], s.PWE)
			own, secret, err := commit(pwe, bytes.NewReader(fromHex(t, s.Rand+s.Mask)))
			if err != nil {
				t.Fatal(err)
			}
			want(t, x.Name+" scalar", own.scalar[:], s.Scalar)
			want(t, x.Name+" element", own.element[:], s.EX+s.EY)
			peer := values{[scalarSize]byte(fromHex(t, s.PeerScalar)), [elementSize]byte(fromHex(t, s.PEX+s.PEY))}
			k, err := derive(&secret, &own, &peer, nil)
			if err != nil {
				t.Fatal(err)
			}
			want(t, x.Name+" KCK", k.kck[:], s.KCK)
			want(t, x.Name+" PMK", k.pmk[:], s.PMK)
			want(t, x.Name+" PMKID", k.pmkid[:], s.PMKID)
			checked++
		}
	}
	if checked != 42 {
		t.Errorf("expected 42 sessions, got %d", checked)
	}
}

// TestRecordedFrames reads every frame, writes it again to the same octets, and
// finds for every Confirm the session whose key it is under.
func TestRecordedFrames(t *testing.T) {
	var commits, confirms, refusals int
	for _, x := range fixtures(t) {
		for i, r := range x.Frames {
			h, body, err := dot11.ParseManagement(r.bytes(t))
			if err != nil {
				t.Fatalf("%s frame %d: %v", x.Name, i, err)
			}
			from, to := r.Dir[:1], r.Dir[2:]
			if h.From != x.mac(t, from) || h.To != x.mac(t, to) || h.Subtype != dot11.Authentication {
				t.Errorf("%s frame %d: header %+v", x.Name, i, h)
			}
			f, err := parse(body)
			if err != nil {
				t.Fatalf("%s frame %d: %v", x.Name, i, err)
			}
			switch f := f.(type) {
			case commitFrame:
				commits++
				if again := f.append(); !bytes.Equal(again, body) {
					t.Errorf("%s frame %d: expected %x, got %x", x.Name, i, body, again)
				}
			case confirmFrame:
				confirms++
				if again := f.append(); !bytes.Equal(again, body) {
					t.Errorf("%s frame %d: expected %x, got %x", x.Name, i, body, again)
				}
				if !x.verifies(t, from, f) {
					t.Errorf("%s frame %d: the Confirm is of no session", x.Name, i)
				}
			case refusal:
				refusals++
				if f.status != dot11.UnspecifiedFailure {
					t.Errorf("%s frame %d: %v", x.Name, i, f.status)
				}
			}
		}
	}
	if commits != 43 || confirms != 78 || refusals != 42 {
		t.Errorf("expected 43 Commits, 78 Confirms, 42 refusals; got %d, %d, %d", commits, confirms, refusals)
	}
}

func (x *fixture) verifies(t *testing.T, from string, f confirmFrame) bool {
	t.Helper()
	for _, s := range x.Sessions {
		if s.Side[:1] != from {
			continue
		}
		own := values{[scalarSize]byte(fromHex(t, s.Scalar)), [elementSize]byte(fromHex(t, s.EX+s.EY))}
		peer := values{[scalarSize]byte(fromHex(t, s.PeerScalar)), [elementSize]byte(fromHex(t, s.PEX+s.PEY))}
		if verifies(fromHex(t, s.KCK), f, &own, &peer) {
			return true
		}
	}
	return false
}

// TestRecordedExchangeDrivesEngine gives an engine the randomness of one side
// and the frames of the other: it has to say what that side said, octet for
// octet, and come to the same key.
func TestRecordedExchangeDrivesEngine(t *testing.T) {
	for _, x := range fixtures(t) {
		if len(x.Sessions) != 2 {
			continue // several exchanges: which frame is of which is guesswork
		}
		for _, s := range x.Sessions {
			t.Run(x.Name+" "+s.Side, func(t *testing.T) {
				now := time.Unix(1_800_000_000, 0)
				own, peer := x.mac(t, s.Side), x.mac(t, other(s.Side))
				e, err := New(Config{
					Own: own, MeshID: []byte(x.SSID), Password: x.password(s.Side), Method: HuntingAndPecking,
					Rand: bytes.NewReader(fromHex(t, s.Rand+s.Mask)),
				}, now)
				if err != nil {
					t.Fatal(err)
				}
				if err := e.Start(now, peer); err != nil {
					t.Fatal(err)
				}
				for _, r := range x.Frames {
					if r.Dir[:1] != s.Side {
						e.Handle(now, r.bytes(t))
					}
				}
				frames, events := e.Take()
				if len(frames) != 2 {
					t.Fatalf("expected a Commit and a Confirm, got %d frames", len(frames))
				}
				for _, r := range x.Frames {
					if r.Dir[:1] != s.Side {
						continue
					}
					b := r.bytes(t)
					for i := range frames {
						if bytes.Equal(frames[i].Bytes[dot11.HeaderSize:], b[dot11.HeaderSize:]) {
							frames = append(frames[:i], frames[i+1:]...)
							break
						}
					}
				}
				if len(frames) != 0 {
					t.Errorf("%d frames differ from those recorded", len(frames))
				}
				if len(events) != 1 || events[0].Kind != Accepted {
					t.Fatalf("expected acceptance, got %+v", events)
				}
				pmk, _ := e.PMK(peer, events[0].PMKID)
				want(t, "PMK", pmk[:], s.PMK)
			})
		}
	}
}
