package port

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// pasts is a Memory that is not kept.
type pasts struct {
	mu sync.Mutex
	m  map[string]Past
}

func (p *pasts) Past(mac string) Past {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[mac]
}

func (p *pasts) Remember(mac string, past Past) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[mac] = past
}

// remembering gives a device a memory of its port a0.
func remembering(t *testing.T, past Past) (*pasts, option) {
	t.Helper()
	p := &pasts{m: map[string]Past{nstest.Link(t, "a0").Attrs().HardwareAddr.String(): past}}
	return p, func(c *Config) { c.Memory = p }
}

// is waits until that is the past of a0.
func (p *pasts) is(t *testing.T, want Past) {
	t.Helper()
	mac := nstest.Link(t, "a0").Attrs().HardwareAddr.String()
	eventually(t, "the port to have another past", func() bool { return p.Past(mac) == want })
}

// answering is an upstream whose server always answers.
func answering() *upstream {
	u := newUpstream()
	close(u.answer)
	return u
}

// The nodes are not there yet, and somebody among them gives addresses.
func TestAServerDoesNotGetThePortOfTheMesh(t *testing.T) {
	_, far := nstest.Cable(t, "a0", "b0")
	u := answering()
	_, memory := remembering(t, Past{Mesh: true})
	a := start(t, 1, []string{"a0"}, gateway(u), clients(t), memory)
	eventually(t, "the status to say for whom it waits", func() bool { return strings.Contains(a.List()[0].Detail, "carried the mesh") })
	time.Sleep(3 * a.timing.client) // nothing is to happen meanwhile
	if got := a.List()[0]; got.Role != Searching || inBridge(t, "a0") || len(u.runs) != 0 {
		t.Errorf("expected it to wait for members, got %+v", got)
	}
	if admitted(t, "a0", "b0", far.Attrs().HardwareAddr, "stranger") {
		t.Error("a batman frame came in before anyone proved itself")
	}
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	expect(t, a.carrier.log, "enslave a0")
	if len(u.runs) != 0 {
		t.Error("the port was an uplink")
	}
}

// All nodes were off for a while, and a server answers before they are back.
func TestAPortThatIsDesertedDoesNotGoUpstream(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	memory, option := remembering(t, Past{})
	a := start(t, 1, []string{"a0"}, gateway(u), clients(t), option)
	b := start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh)
	memory.is(t, Past{Mesh: true})
	b.stop()
	a.await(EventRole, "role", Searching, "was", Mesh)
	// Without a server, whoever is there is a client, as soon as on any port.
	a.await(EventRole, "role", Client)
	close(u.answer)
	a.await(EventRole, "role", Searching, "was", Client)
	eventually(t, "it to leave the bridge", func() bool { return !inBridge(t, "a0") })
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	if len(u.runs) != 0 {
		t.Error("the port was an uplink")
	}
}

// Somebody has moved the cable: the port is an uplink after a time, in a longer one it
// is that at once after a start, and in the end it is nothing else.
func TestAPortOfTheMeshThatWasMoved(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := answering()
	memory, option := remembering(t, Past{Mesh: true})
	bridge := clients(t)
	hurry := func(lasting, forget time.Duration) func(*timing) {
		return func(t *timing) { t.loyal, t.lasting, t.forget = time.Second, lasting, forget }
	}
	a := start(t, 1, []string{"a0"}, gateway(u), bridge, option, hurried(hurry(time.Hour, time.Hour)))
	began := time.Now()
	a.await(EventRole, "role", Uplink, "was", Searching)
	if waited := time.Since(began); waited < time.Second/2 {
		t.Errorf("it was given away after %s", waited)
	}
	expect(t, u.runs, "a0")
	time.Sleep(3 * a.timing.proved)
	memory.is(t, Past{Mesh: true})
	a.stop()

	a = start(t, 1, []string{"a0"}, gateway(u), bridge, option, hurried(hurry(time.Second, time.Hour)))
	expect(t, u.runs, "a0")
	memory.is(t, Past{Mesh: true, Uplink: true})
	a.stop()

	a = start(t, 1, []string{"a0"}, gateway(u), bridge, option, hurried(func(t *timing) { t.lasting, t.forget = time.Second, 2*time.Second }))
	expect(t, u.runs, "a0") // it does not wait for an hour
	memory.is(t, Past{Uplink: true})
}

// A server got the port while all nodes were off for long, and answers still.
func TestMembersGetTheirPortBack(t *testing.T) {
	for name, past := range map[string]Past{"after a moment": {Mesh: true}, "after hours": {Mesh: true, Uplink: true}} {
		t.Run(name, func(t *testing.T) {
			_, far := nstest.Cable(t, "a0", "b0")
			u := answering()
			memory, option := remembering(t, past)
			a := start(t, 1, []string{"a0"}, gateway(u), clients(t), option, hurried(func(t *timing) { t.loyal = 2 * time.Second }))
			expect(t, u.runs, "a0")
			start(t, 2, []string{"b0"})
			if e := a.await(EventBack, "iface", "a0"); e.Severity != model.Warning {
				t.Errorf("got %+v", e)
			}
			expect(t, u.ended, errMembers)
			a.await(EventProven, "peer", key(2).ID())
			a.await(EventRole, "role", Mesh)
			expect(t, a.carrier.log, "enslave a0")
			memory.is(t, Past{Mesh: true})
			if !admitted(t, "a0", "b0", far.Attrs().HardwareAddr, "member") {
				t.Error("a batman frame of the member did not come in")
			}
		})
	}
}

// Who greets without being a member, as a recording does, gets nothing of an uplink; nor
// does a member where the mesh never was, or where the bundle says what the port is.
func TestAnUplinkStaysOne(t *testing.T) {
	refused := func(c *Config) {
		c.Admit = func(identity.PublicKey) error { return errors.New("revoked") }
	}
	for name, tc := range map[string]struct {
		past Past
		more option
	}{
		"no member":    {Past{Mesh: true, Uplink: true}, refused},
		"never meshed": {Past{Uplink: true}, func(*Config) {}},
		"pinned":       {Past{Mesh: true}, pin("a0", Uplink)},
	} {
		t.Run(name, func(t *testing.T) {
			nstest.Cable(t, "a0", "b0")
			u := answering()
			memory, option := remembering(t, tc.past)
			a := start(t, 1, []string{"a0"}, gateway(u), clients(t), option, tc.more)
			expect(t, u.runs, "a0")
			start(t, 2, []string{"b0"})
			a.await(EventBehind)
			time.Sleep(2 * time.Second) // of greetings
			if got := a.List()[0]; got.Role != Uplink || len(u.ended) != 0 {
				t.Errorf("expected the uplink, got %+v", got)
			}
			memory.is(t, tc.past)
		})
	}
}

// TestAnUplinkHearsProofsInSilence: nothing is sent upstream to all.
func TestAnUplinkHearsProofsInSilence(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := answering()
	_, option := remembering(t, Past{Mesh: true, Uplink: true})
	a := start(t, 1, []string{"a0"}, gateway(u), option)
	expect(t, u.runs, "a0")
	mac := nstest.Link(t, "b0").Attrs()
	w, err := listen(t.Context(), mac.Index, "b0", [6]byte(mac.HardwareAddr), false)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case f := <-w.in:
		t.Errorf("expected nothing, got a proof to %s", f.to)
	case <-time.After(10 * a.timing.proof.Search):
	}
}

// A site's router takes longer to start than the gateway.
func TestAnUplinkIsNotGivenToClients(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	memory, option := remembering(t, Past{})
	bridge := clients(t)
	a := start(t, 1, []string{"a0"}, gateway(u), bridge, option)
	a.await(EventRole, "role", Client) // nothing is known of it
	u.answer <- struct{}{}
	a.await(EventRole, "role", Uplink)
	memory.is(t, Past{Uplink: true})
	a.stop()

	a = start(t, 1, []string{"a0"}, gateway(u), bridge, option)
	eventually(t, "the status to say what it waits for", func() bool { return strings.Contains(a.List()[0].Detail, "led upstream before") })
	if !waiting(t, a) {
		t.Errorf("expected it to wait for a server, got %+v", a.List()[0])
	}
	u.answer <- struct{}{}
	a.await(EventRole, "role", Uplink, "was", Searching)
	u.lost <- errors.New("the lease ended")
	a.await(EventRole, "role", Searching, "was", Uplink)
	if !waiting(t, a) {
		t.Errorf("after its server was lost: expected it to wait for one, got %+v", a.List()[0])
	}
	// A member is one at once.
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	memory.is(t, Past{Mesh: true})
}

// waiting tells whether a port goes on searching after it would be given to clients.
func waiting(t *testing.T, a *device) bool {
	t.Helper()
	time.Sleep(5 * a.timing.client) // nothing is to happen meanwhile
	return a.List()[0].Role == Searching && !inBridge(t, "a0")
}

// Somebody has plugged a camera in where an uplink was.
func TestAnUplinkThatWasMoved(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	memory, option := remembering(t, Past{Uplink: true})
	hurry := hurried(func(t *timing) { t.loyal, t.lasting = 2*time.Second, time.Second })
	a := start(t, 1, []string{"a0"}, gateway(newUpstream()), clients(t), option, hurry)
	began := time.Now()
	a.await(EventRole, "role", Client)
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("it was given away after %s", waited)
	}
	memory.is(t, Past{})
	if got := a.List()[0]; got.Role != Client {
		t.Errorf("expected it to serve clients still, got %+v", got)
	}
}
