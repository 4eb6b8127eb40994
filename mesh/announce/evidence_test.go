package announce

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// speech makes a gateway's message with that stamp.
func speech(t *testing.T, key identity.Key, network identity.PublicKey, s Stamp, nonce []byte) []byte {
	t.Helper()
	m := self()
	m.Stamp, m.Nonce = s, nonce
	b, err := Codec{network}.EncodeGateway(key, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A gateway on a fresh card is refused, is shown why, and believed once it has
// raised its epoch; the node's own restart in between changes nothing.
func TestARefusedGatewayIsShownTheHigherEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		var kept [][]byte
		var heard []Heard
		newNode := func(boot uint64) *NodeSide {
			n := NewNodeSide(nd.config(a, network.Public(), boot), make([]byte, 32), 0, func(h Heard) { heard = append(heard, h) })
			n.Proved = func(b []byte) { kept = append(kept, b) }
			return n
		}
		var epoch atomic.Uint64
		newGateway := func(boot uint64) *GatewaySide {
			return NewGatewaySide(gw.config(a, network.Public(), boot), func() Gateway {
				m := self()
				m.Stamp.Epoch = epoch.Load()
				return m
			}, func(Node, netip.Addr) <-chan struct{} { return nil })
		}
		epoch.Store(41)
		old := newGateway(90)
		endOld, endNode := life(t, old.Run), life(t, newNode(1).Run)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(kept) != 1 {
			t.Fatalf("evidence was kept %d times at one epoch, want once", len(kept))
		}
		if e, err := (Codec{network.Public()}).GatewayEpoch(kept[0]); err != nil || e != 41 {
			t.Fatalf("kept: epoch %d, %v", e, err)
		}
		endOld()
		endNode()

		epoch.Store(40)
		fresh := newGateway(1)
		node := newNode(2)
		node.Floor, node.Evidence = 41, kept[0]
		refused := 0
		node.Refused = func(e, floor uint64) { refused++ }
		before := len(a.by(nd.addr))
		defer life(t, fresh.Run)()
		defer life(t, node.Run)()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := fresh.HeardEpoch(); got != 41 {
			t.Fatalf("the gateway learnt of epoch %d, want 41; it ignored %v, the node %v", got, fresh.Counters.Snapshot(), node.Counters.Snapshot())
		}
		shown, asked := 0, 0
		for _, m := range a.by(nd.addr)[before:] {
			if !bytes.Equal(m.data, kept[0]) {
				asked++
			} else if shown++; m.to != gw.addr {
				t.Errorf("evidence went to %s, want the gateway alone", m.to)
			}
		}
		if shown == 0 || shown != refused || shown > asked {
			t.Errorf("evidence was shown %d times for %d refused answers to %d questions", shown, refused, asked)
		}

		heard = nil
		epoch.Store(42)
		fresh.Changed()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(heard) == 0 || heard[0].Stamp.Epoch != 42 || heard[0].RoundTrip == 0 {
			t.Errorf("after the raise the node believes %+v, want the answer to a question", heard)
		}
		if len(kept) != 2 {
			t.Errorf("evidence was kept %d times, want once more", len(kept))
		}
	})
}

// However often one answer is sent again, and whatever else is signed by the
// network's key, one question leads to one piece of evidence.
func TestEvidenceIsNotMultiplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		believed := 0
		node := NewNodeSide(nd.config(a, network.Public(), 1), make([]byte, 32), 5, func(Heard) { believed++ })
		node.Evidence = speech(t, network, network.Public(), Stamp{Epoch: 5, Boot: 1, Seq: 1}, nil)
		defer life(t, node.Run)()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		all := a.by(nd.addr)
		m, err := Codec{network.Public()}.Decode(all[len(all)-1].data)
		if err != nil {
			t.Fatal(err)
		}
		nonce := m.(Node).Nonce
		evidence := func() (n int) {
			for _, m := range a.by(nd.addr) {
				if bytes.Equal(m.data, node.Evidence) {
					n++
				}
			}
			return n
		}
		say := func(key identity.Key, epoch, seq uint64, nonce []byte) {
			a.inject(sent{from: gw.addr, to: nd.addr, data: speech(t, key, network.Public(), Stamp{Epoch: epoch, Boot: 9, Seq: seq}, nonce)})
			synctest.Wait()
		}
		say(network, 4, 1, nil)
		say(network, 4, 2, bytes.Repeat([]byte{1}, NonceSize))
		say(identity.New(), 4, 3, nonce)
		if n := evidence(); n != 0 {
			t.Errorf("evidence was shown %d times to what is no living gateway", n)
		}
		for i := range uint64(10) {
			say(network, 4, 4+i, nonce)
		}
		if n := evidence(); n != 1 {
			t.Errorf("evidence was shown %d times for one question, want once", n)
		}
		say(network, 5, 90, nonce)
		if believed != 1 {
			t.Error("the right gateway's answer is not believed after the other's")
		}
	})
}

func TestANodeWithoutEvidenceShowsNone(t *testing.T) {
	network := identity.New()
	for name, evidence := range map[string][]byte{
		"none": nil, "rubbish": []byte("rubbish"), "oversize": make([]byte, MaxSize+1),
		"forged":              speech(t, identity.New(), network.Public(), Stamp{Epoch: 9, Boot: 1, Seq: 1}, nil),
		"no higher than this": speech(t, network, network.Public(), Stamp{Epoch: 4, Boot: 1, Seq: 1}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &air{}
				gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
				node := NewNodeSide(nd.config(a, network.Public(), 1), make([]byte, 32), 5, func(Heard) {})
				node.Evidence = evidence
				refused := 0
				node.Refused = func(uint64, uint64) { refused++ }
				gateway := NewGatewaySide(gw.config(a, network.Public(), 1), func() Gateway {
					m := self()
					m.Stamp.Epoch = 4
					return m
				}, func(Node, netip.Addr) <-chan struct{} { return nil })
				defer life(t, gateway.Run)()
				defer life(t, node.Run)()
				time.Sleep(time.Minute)
				synctest.Wait()
				if refused == 0 || gateway.HeardEpoch() != 0 {
					t.Errorf("refused %d times, the gateway learnt of %d", refused, gateway.HeardEpoch())
				}
				if c := gateway.Counters.Snapshot(); c[ignoredOld]+c[ignoredSignature]+c[ignoredForm] != 0 {
					t.Errorf("the gateway ignored %v, want nothing sent to it", c)
				}
			})
		})
	}
}

func TestTheGatewayBelievesOnlyItsOwnKeysEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, other := identity.New(), identity.New()
		net := network.Public()
		a := &air{}
		gw, nd := newMember(net, network), newMember(net, identity.New())
		gateway := NewGatewaySide(gw.config(a, net, 1), func() Gateway {
			m := self()
			m.Stamp.Epoch = 40
			return m
		}, func(Node, netip.Addr) <-chan struct{} {
			t.Error("evidence was taken for a question")
			return nil
		})
		defer life(t, gateway.Run)()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		bent := speech(t, network, net, Stamp{Epoch: 60, Boot: 1, Seq: 1}, nil)
		bent[len(bent)-1] ^= 1
		for _, tc := range []struct {
			name   string
			data   []byte
			want   uint64
			reason string
		}{
			{"signed by a node", speech(t, nd.key, net, Stamp{Epoch: 50, Boot: 1, Seq: 1}, nil), 0, ignoredSignature},
			{"damaged", bent, 0, ignoredSignature},
			{"another network's", speech(t, other, other.Public(), Stamp{Epoch: 50, Boot: 1, Seq: 1}, nil), 0, ignoredNetwork},
			{"lower", speech(t, network, net, Stamp{Epoch: 39, Boot: 99, Seq: 1}, nil), 0, ignoredOld},
			{"its own", speech(t, network, net, Stamp{Epoch: 40, Boot: 1, Seq: 1}, nil), 0, ignoredOld},
			{"its own of an earlier boot", speech(t, network, net, Stamp{Epoch: 40, Boot: 0, Seq: 1 << 40}, nil), 0, ignoredOld},
			{"the same epoch, and it has not got so far", speech(t, network, net, Stamp{Epoch: 40, Boot: 2, Seq: 1}, nil), 40, ""},
			{"higher", speech(t, network, net, Stamp{Epoch: 43, Boot: 1, Seq: 1}, make([]byte, NonceSize)), 43, ""},
			{"the same again", speech(t, network, net, Stamp{Epoch: 43, Boot: 1, Seq: 1}, nil), 43, ignoredOld},
			{"higher than its own, lower than heard", speech(t, network, net, Stamp{Epoch: 42, Boot: 9, Seq: 9}, nil), 43, ignoredOld},
			{"another node knows more", speech(t, network, net, Stamp{Epoch: 45, Boot: 1, Seq: 1}, nil), 45, ""},
		} {
			before := gateway.Counters.Snapshot()
			a.inject(sent{from: nd.addr, to: gw.addr, data: tc.data})
			synctest.Wait()
			if got := gateway.HeardEpoch(); tc.reason == "" && got == tc.want {
				t.Errorf("%s: it took %d for that of a dead gateway before it had asked for a living one", tc.name, got)
			}
			time.Sleep(twinPause + searchTakes) // the search before this one's, and this one's
			synctest.Wait()
			if got := gateway.HeardEpoch(); got != tc.want {
				t.Errorf("%s: it learnt of %d, want %d", tc.name, got, tc.want)
			}
			if after := gateway.Counters.Snapshot(); tc.reason != "" && after[tc.reason] != before[tc.reason]+1 {
				t.Errorf("%s: counted %v after %v, want one more as %q", tc.name, after, before, tc.reason)
			}
		}
		for i := range uint64(3 * strangersPerSecond) {
			a.inject(sent{from: nd.addr, to: gw.addr, data: speech(t, network, net, Stamp{Epoch: 100 + i, Boot: 1, Seq: 1}, nil)})
			synctest.Wait()
		}
		time.Sleep(twinPause + searchTakes)
		synctest.Wait()
		if c := gateway.Counters.Snapshot(); c[ignoredRate] < 2*strangersPerSecond-1 || gateway.HeardEpoch() > 100+strangersPerSecond {
			t.Errorf("of a flood it took more than %d in an instant: %v, learnt of %d", strangersPerSecond, c, gateway.HeardEpoch())
		}
		for _, m := range a.by(gw.addr) {
			if g, ok := decode(t, net, m.data).(Gateway); ok && (len(g.Nonce) > 0 || m.to != paths.AnnounceGroup) {
				t.Errorf("the gateway answered %+v", g)
			}
		}
	})
}

// A gateway takes the place of another one that had the same epoch: on a fresh card, or
// from an old copy of the other's. Nodes have what the former signed, and show it; one
// that raises its epoch meanwhile gets them before it has any, and one that does not
// gets them later.
func TestAGatewayOfTheSameEpochIsShownWhatWasBefore(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ca     byte // of the former, 1 is the latter's
		boot   uint64
		raises bool
	}{
		{"a fresh card", 2, 90, true},
		{"a fresh card that started more often", 2, 1, true},
		{"a card that does not raise it", 2, 90, false},
		{"an old copy", 1, 90, false},
	} {
		for _, restarts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the node restarts: %v", tc.name, restarts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := identity.New()
					net := network.Public()
					a := &air{}
					gw, nd := newMember(net, network), newMember(net, identity.New())
					var mu sync.Mutex // guards what follows
					var kept []byte
					var heard []Heard
					since := func() []Heard {
						mu.Lock()
						defer mu.Unlock()
						list := heard
						heard = nil
						return list
					}
					newNode := func(boot uint64) *NodeSide {
						n := NewNodeSide(nd.config(a, net, boot), make([]byte, 32), 0, func(h Heard) {
							mu.Lock()
							defer mu.Unlock()
							heard = append(heard, h)
						})
						n.Proved = func(b []byte) {
							mu.Lock()
							defer mu.Unlock()
							kept = b
						}
						mu.Lock()
						defer mu.Unlock()
						n.Home, n.Evidence = bytes.Repeat([]byte{tc.ca}, 32), kept
						if kept != nil {
							n.Floor = 40
						}
						return n
					}
					var epoch atomic.Uint64
					epoch.Store(40)
					newGateway := func(ca byte, boot uint64) *GatewaySide {
						return NewGatewaySide(gw.config(a, net, boot), func() Gateway {
							m := self()
							m.Stamp.Epoch, m.CASHA256 = epoch.Load(), bytes.Repeat([]byte{ca}, 32)
							return m
						}, func(Node, netip.Addr) <-chan struct{} { return nil })
					}
					endFormer, endNode := life(t, newGateway(tc.ca, tc.boot).Run), life(t, newNode(1).Run)
					time.Sleep(10 * time.Minute)
					synctest.Wait()
					endFormer()
					if restarts {
						endNode()
						synctest.Wait()
						endNode = life(t, newNode(2).Run)
					}
					defer func() { endNode() }()
					time.Sleep(5 * time.Minute)
					synctest.Wait()
					since()
					latter := newGateway(1, 3)
					defer life(t, latter.Run)()
					time.Sleep(100 * time.Second)
					synctest.Wait()
					if got := latter.HeardEpoch(); got != 40 && !(tc.ca == 1 && restarts) { // of a copy's, the card does not know
						t.Fatalf("it was shown epoch %d, want 40; it ignored %v", got, latter.Counters.Snapshot())
					}
					early := since()
					if tc.ca != 1 && len(early) > 0 {
						t.Errorf("the node was with it before it had the time to raise its epoch: %+v", early[0])
					}
					if tc.raises {
						epoch.Store(41)
						latter.Changed()
					}
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					if list := append(early, since()...); len(list) == 0 || list[0].CASHA256[0] != 1 || tc.ca != 1 && list[0].Stamp.Epoch != epoch.Load() {
						t.Errorf("the node heard %+v", list)
					}
					shown := func() (n int) {
						for _, m := range a.by(nd.addr) {
							if _, ok := decode(t, net, m.data).(Gateway); ok {
								n++
							}
						}
						return n
					}
					before := shown()
					time.Sleep(2 * time.Hour)
					synctest.Wait()
					if again := shown() - before; tc.raises && again > 0 || again > 6 {
						t.Errorf("in two hours it showed evidence %d times", again)
					}
				})
			})
		}
	}
}

// To another node evidence is a recording, and nothing more.
func TestEvidenceMeansNothingToOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		believed := 0
		node := NewNodeSide(nd.config(a, network.Public(), 1), make([]byte, 32), 0, func(Heard) { believed++ })
		defer life(t, node.Run)()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		evidence := func(s Stamp, nonce []byte) {
			a.inject(sent{from: netip.MustParseAddr("fe80::1"), to: nd.addr, data: speech(t, network, network.Public(), s, nonce)})
			synctest.Wait()
		}
		evidence(Stamp{Epoch: 7, Boot: 3, Seq: 5}, make([]byte, NonceSize))
		evidence(Stamp{Epoch: 7, Boot: 3, Seq: 5}, nil)
		if believed != 0 {
			t.Fatalf("it believed %d recordings before any answer", believed)
		}
		gateway := NewGatewaySide(gw.config(a, network.Public(), 2), func() Gateway {
			m := self()
			m.Stamp.Epoch = 8
			return m
		}, func(Node, netip.Addr) <-chan struct{} { return nil })
		defer life(t, gateway.Run)()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n := believed
		evidence(Stamp{Epoch: 7, Boot: 3, Seq: 5}, nil)
		evidence(Stamp{Epoch: 8, Boot: 1, Seq: 5}, nil)
		evidence(Stamp{Epoch: 8, Boot: 9, Seq: 5}, make([]byte, NonceSize))
		if n == 0 || believed != n {
			t.Errorf("it believed %d messages, and %d after recordings", n, believed)
		}
	})
}
