package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/vishvananda/netlink"

	"halo.internal/agent/neighbourhood"
	"halo.internal/gateway"
	"halo.internal/identity"
	"halo.internal/lab/admin"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
)

const (
	within     = 2 * time.Minute // generous: reached only by a failure
	apiPort    = "8080"
	tlsAddress = "127.0.0.1:8443"
	insideNS   = "HALO_TEST_PICTURE"
)

// TestTheNetworksPictureFromEndToEnd has a real gateway, and nodes whose reports the real
// agent's reporter makes of what a stand-in for halo-mesh says, each from its own address
// of the overlay. It runs itself in a network namespace, which has these.
func TestTheNetworksPictureFromEndToEnd(t *testing.T) {
	if os.Getenv(insideNS) == "" {
		t.Parallel()
		c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
		c.Env = append(os.Environ(), insideNS+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
			c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	t.Setenv("TMPDIR", "/dev/shm") // both databases sync a lot
	n := newNetwork(t)
	gw, b, c, d := n.node("gw"), n.node("b"), n.node("c"), n.node("d")
	gw.link(b)
	b.link(c)
	c.link(d)
	d.link(gw)
	for _, x := range []*fake{b, d} {
		x.via(gw)
	}
	c.via(b)
	for _, x := range []*fake{b, c, d, gw} {
		x.start()
	}

	// All that they report is in one picture.
	p := n.until("a ring with ways", func(p graph.Picture) error {
		for _, node := range p.Nodes {
			if node.Report != graph.Fresh || node.Overlay == graph.OverlayDown {
				return fmt.Errorf("%s: report %s, overlay %s", node.Name, node.Report, node.Overlay)
			}
		}
		if len(p.Nodes) != 4 || live(p) != 4 || len(p.Routes) != 3 || len(p.Cuts) != 0 {
			return fmt.Errorf("%d nodes, %d live links, %d cuts", len(p.Nodes), live(p), len(p.Cuts))
		}
		return nil
	})
	for _, l := range p.Links {
		if l.AB.SignalDBm == 0 || l.BA.SignalDBm == 0 || l.Quality == 0 {
			t.Errorf("%v: expected quality both ways, got %+v", l.LinkID, l)
		}
	}
	if way := p.Path(c.id()); len(way) != 3 || way[1] != b.id() || way[2] != gw.id() {
		t.Errorf("c reaches the gateway by %v", way)
	}
	var whole time.Time
	n.eventually("the ring is written down", func() error {
		now := time.Now()
		was, err := n.admin.Picture(t.Context(), now.Add(-1500*time.Millisecond))
		if err == nil && live(was) != 4 {
			err = fmt.Errorf("%d live links", live(was))
		}
		whole = now.Add(-1500 * time.Millisecond)
		return err
	})

	// The gateway starts anew: it has whole reports sent.
	n.restart()
	p = n.until("the picture after a restart of the gateway", func(p graph.Picture) error {
		if len(p.Nodes) != 4 || live(p) != 4 {
			return fmt.Errorf("%d nodes, %d live links", len(p.Nodes), live(p))
		}
		return nil
	})

	// A link is cut: whoever waits for changes hears of it, and people by an event.
	heard := make(chan graph.Delta, 1)
	go func() {
		have := p
		for {
			a, err := n.admin.PictureChanges(t.Context(), have.Run, have.Seq)
			if err == nil && a.Delta == nil {
				continue // nothing has changed
			}
			if err == nil {
				have, err = have.Apply(*a.Delta)
			}
			if err != nil {
				t.Errorf("changes: %v", err)
				return
			}
			if live(have) == 3 {
				heard <- *a.Delta
				return
			}
		}
	}()
	c.unlink(d)
	select {
	case <-heard:
	case <-time.After(within):
		t.Fatal("who waits for changes does not hear of a link that is cut")
	}
	n.until("who is behind whom", func(p graph.Picture) error {
		if cut, ok := p.Cut(graph.CutID{Node: b.id()}); !ok || cut.Count != 1 || cut.Split[0] != c.id() {
			return fmt.Errorf("cuts %+v", p.Cuts)
		}
		return nil
	})

	// The agent of d starts anew within the same start of the machine, and goes on.
	d.restart()
	d.link(b)
	n.until("a link that an agent reports after its restart", func(p graph.Picture) error {
		if live(p) != 4 {
			return fmt.Errorf("%d live links", live(p))
		}
		return nil
	})
	n.eventually("an event of the link that was cut", func() error {
		list, err := n.admin.EventsSince(t.Context(), "", "topology.link.lost", 0)
		if err == nil && (len(list) != 1 || list[0].Fields["transport"] != "wifi" || list[0].Source != "gateway-api") {
			err = fmt.Errorf("got %+v", list)
		}
		return err
	})

	// What was before the restart is remembered.
	was, err := n.admin.Picture(t.Context(), whole)
	if err != nil || live(was) != 4 || len(was.Cuts) != 0 || was.Run == n.picture().Run {
		t.Errorf("the ring of before the restart: %d live links, %v", live(was), err)
	}
	n.eventually("the history has the link that was cut", func() error {
		moments, err := n.admin.PictureHistory(t.Context())
		lost := 0
		for _, m := range moments {
			lost += len(m.LinksLost)
		}
		if err == nil && (lost != 1 || !moments[0].Anew) {
			err = fmt.Errorf("got %+v", moments)
		}
		return err
	})

	// Who is shut out is a stranger.
	if err := n.admin.Revoke(t.Context(), d.id()); err != nil {
		t.Fatal(err)
	}
	n.until("a network without d", func(p graph.Picture) error {
		strangers := 0
		for _, node := range p.Nodes {
			if node.Kind == graph.KindStranger { // two members still see it
				strangers++
			}
		}
		if _, there := p.Node(d.id()); there || len(p.Nodes) != 4 || strangers != 1 {
			return fmt.Errorf("%d nodes, %d strangers", len(p.Nodes), strangers)
		}
		return nil
	})
}

func live(p graph.Picture) (n int) {
	for _, l := range p.Links {
		if l.State == graph.Live {
			n++
		}
	}
	return n
}

// network is a gateway with its nodes.
type network struct {
	t     *testing.T
	dir   string
	stop  func()
	key   identity.Key
	admin *admin.Admin
	nodes []*fake
}

// console is where the gateway prints its claim code.
type console struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

func newNetwork(t *testing.T) *network {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil { // so that any address of it can be spoken from
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: paths.OverlayGateway.AsSlice(), Mask: net.CIDRMask(16, 32)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, dir: t.TempDir()}
	said := n.start()
	t.Cleanup(func() { n.stop() })
	var code string
	n.eventually("the claim code", func() error {
		var ok bool
		if _, code, ok = strings.Cut(said.String(), "Claim code of this gateway: "); !ok || !strings.HasSuffix(code, "\n") {
			return fmt.Errorf("printed %q", said)
		}
		return nil
	})
	n.eventually("a claim", func() (err error) {
		n.admin, err = admin.Claim(t.Context(), "https://"+tlsAddress, strings.TrimSpace(code))
		return err
	})
	t.Cleanup(n.admin.Close)
	st, err := identity.Load(paths.Dir(n.dir).File(paths.Identity), nil)
	if err != nil {
		t.Fatal(err)
	}
	n.key = st.Key
	return n
}

func (n *network) base() string { return "http://" + paths.OverlayGateway.String() + ":" + apiPort }

func (n *network) start() *console {
	said := &console{}
	c := gateway.Laptop(n.dir, []string{paths.OverlayGateway.String() + ":" + apiPort}, said, slog.New(slog.DiscardHandler))
	c.TLS, c.LinkLost = []string{tlsAddress}, time.Second
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gateway.Run(ctx, c) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("gateway: %v", err)
		}
	})
	return said
}

func (n *network) restart() {
	n.stop()
	n.start()
	n.eventually("the gateway is back", func() error {
		_, err := n.admin.Nodes(n.t.Context())
		return err
	})
}

func (n *network) eventually(what string, f func() error) {
	n.t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	n.t.Fatalf("%s: %v", what, err)
}

// picture is the present one.
func (n *network) picture() graph.Picture {
	n.t.Helper()
	p, err := n.admin.Picture(n.t.Context(), time.Time{})
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// until waits until the picture is as it is to be.
func (n *network) until(what string, is func(graph.Picture) error) (p graph.Picture) {
	n.t.Helper()
	n.eventually(what, func() (err error) {
		if p, err = n.admin.Picture(n.t.Context(), time.Time{}); err != nil {
			return err
		}
		return is(p)
	})
	return p
}

// fake is a node: what its halo-mesh says, and the real agent's reporter on a stream.
type fake struct {
	n       *network
	name    string
	number  int
	key     identity.Key
	address netip.Addr // of the overlay
	end     func()     // of its agent

	mu     sync.Mutex // guards what follows
	status model.MeshStatus
}

func (f *fake) id() string { return f.key.ID() }

func (f *fake) mac() dot11.MAC { return dot11.MAC{2, 0, 0, 0, 0, byte(f.number)} }

// node adds a node, which is yet to be started; the first is the gateway's own agent.
func (n *network) node(name string) *fake {
	n.t.Helper()
	f := &fake{n: n, name: name, number: len(n.nodes) + 1, key: n.key, address: paths.OverlayGateway}
	n.nodes = append(n.nodes, f)
	role := model.RoleGateway
	if f.number > 1 {
		role, f.key = model.RoleNode, identity.New()
		f.address = n.join(f.key, name)
	}
	shaken := time.Now()
	f.status = model.MeshStatus{Node: f.id(), Role: role, BootCounter: 1, Gateway: n.key.ID(),
		Interfaces: []model.Interface{{Name: "mesh0", Kind: "wifi", MAC: f.mac().String()}},
		Radios:     []model.Radio{{Name: "phy0", Iface: "mesh0", MAC: f.mac().String(), FreqMHz: 2412, WidthMHz: 20, Member: true}},
		Overlay:    []model.OverlayPeer{{Node: n.key.ID(), LastHandshake: &shaken, Endpoint: "[fd00::1]:51820"}},
	}
	return f
}

func (f *fake) change(how func(*model.MeshStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(&f.status)
	f.status.Radios = append([]model.Radio(nil), f.status.Radios...) // the reporter keeps the former ones
	f.status.Radios[0].Peers = append([]model.RadioPeer(nil), f.status.Radios[0].Peers...)
	f.status.Neighbours = append([]model.Neighbour(nil), f.status.Neighbours...)
}

func (f *fake) link(o *fake) {
	for _, e := range [][2]*fake{{f, o}, {o, f}} {
		e[0].change(func(s *model.MeshStatus) {
			s.Radios[0].Peers = append(s.Radios[0].Peers[:len(s.Radios[0].Peers):len(s.Radios[0].Peers)], model.RadioPeer{MAC: e[1].mac().String(), Linked: true, SignalDBm: -62, TxMbps: 65, RxMbps: 65})
			s.Neighbours = append(s.Neighbours[:len(s.Neighbours):len(s.Neighbours)], model.Neighbour{Iface: "mesh0", MAC: e[1].mac().String(), TQ: 250})
		})
	}
}

func (f *fake) unlink(o *fake) {
	for _, e := range [][2]*fake{{f, o}, {o, f}} {
		e[0].change(func(s *model.MeshStatus) {
			peers, neighbours := []model.RadioPeer{}, []model.Neighbour{}
			for i, p := range s.Radios[0].Peers {
				if p.MAC != e[1].mac().String() {
					peers, neighbours = append(peers, p), append(neighbours, s.Neighbours[i])
				}
			}
			s.Radios, s.Neighbours = append([]model.Radio(nil), s.Radios...), neighbours
			s.Radios[0].Peers = peers
		})
	}
}

func (f *fake) via(o *fake) {
	f.change(func(s *model.MeshStatus) {
		s.NextHop = &model.ReportNextHop{Node: f.n.key.ID(), Next: o.mac(), Iface: "mesh0", TQ: 240}
	})
}

// began is when the machines of all nodes started.
var began = time.Now().Add(-time.Hour)

// hurry is how much faster than others' the clock goes by which agents wait between
// reports. For how long they do is not what is looked at here.
const hurry = 10

func agentTime() time.Time { return began.Add(hurry * time.Since(began)) }

// start is a start of the agent's process.
func (f *fake) start() {
	reporter := neighbourhood.New(func() (model.MeshStatus, time.Time) {
		f.mu.Lock()
		defer f.mu.Unlock()
		s := f.status
		s.Time = time.Now()
		return s, agentTime()
	}, func() uint64 { return uint64(time.Since(began).Milliseconds()) })
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() {
		for ctx.Err() == nil {
			if err := f.stream(ctx, reporter); err != nil && ctx.Err() == nil {
				time.Sleep(200 * time.Millisecond) // the gateway starts anew
			}
		}
	})
	f.end = func() { cancel(); owned.Wait() }
	f.n.t.Cleanup(f.end)
}

func (f *fake) restart() {
	f.end()
	f.start()
}

// stream is a connection to the gateway, from the node's own address.
func (f *fake) stream(ctx context.Context, r *neighbourhood.Reporter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from := &net.TCPAddr{IP: f.address.AsSlice()}
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: from}).DialContext, DisableKeepAlives: true}}
	conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(f.n.base(), "http")+"/v1/nodes/stream", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return err
	}
	_ = resp.Body // it is the connection's
	defer conn.CloseNow()
	conn.SetReadLimit(wire.MaxMessage)
	read := func() (wire.Message, error) {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return nil, err
		}
		return wire.Unmarshal(b)
	}
	write := func(m wire.Message) error {
		b, err := wire.Marshal(m)
		if err != nil {
			f.n.t.Error(err)
			return err
		}
		return conn.Write(ctx, websocket.MessageBinary, b)
	}
	m, err := read()
	c, ok := m.(wire.Challenge)
	if err != nil || !ok {
		return fmt.Errorf("got %T, %w", m, err)
	}
	key := f.key.Public()
	hello := wire.Hello{Key: key[:], Boot: 1, Version: "test", Interval: 60}
	hello.Signature = f.key.Sign(wire.StreamContext, hello.SignedBytes(c.Nonce, strings.TrimPrefix(f.n.base(), "http://")))
	if err := write(hello); err != nil {
		return err
	}
	if m, err = read(); err != nil {
		return err
	}
	if _, ok := m.(wire.Welcome); !ok {
		return fmt.Errorf("got %+v", m)
	}
	r.Begin()
	go func() {
		defer cancel()
		for {
			m, err := read()
			if err != nil {
				return
			}
			if _, ok := m.(wire.NeighboursWanted); ok {
				r.Again()
			}
		}
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if report, ok := r.Next(agentTime(), false); ok {
			if err := write(wire.NeighboursMessage{Report: report}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// join admits a node, and returns its address of the overlay.
func (n *network) join(key identity.Key, name string) netip.Addr {
	n.t.Helper()
	wg := key.WireGuardPublic()
	proof, err := identity.ProvePossession(n.key.Public(), key.Public(), key.WireGuard())
	if err != nil {
		n.t.Fatal(err)
	}
	r := model.JoinRequest{Network: n.key.Public().Base64(), IdentityKey: key.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]), Name: name,
		Possession: base64.StdEncoding.EncodeToString(proof), Token: identity.NewJoinToken(1, time.Now().Add(time.Hour)).Text(n.key)}
	var m model.Membership
	for range 2 {
		b, err := json.Marshal(r)
		if err != nil {
			n.t.Fatal(err)
		}
		resp, err := http.Post(n.base()+"/v1/nodes/join", "application/json", bytes.NewReader(b))
		if err != nil {
			n.t.Fatal(err)
		}
		var p apitype.Problem
		if resp.StatusCode == http.StatusOK {
			err = json.NewDecoder(resp.Body).Decode(&m)
		} else {
			err = json.NewDecoder(resp.Body).Decode(&p)
		}
		resp.Body.Close()
		if err != nil {
			n.t.Fatal(err)
		}
		if m.Node != "" {
			return m.OverlayV4
		}
		r.Nonce = p.Nonce
		r.Signature = base64.StdEncoding.EncodeToString(key.Sign(model.JoinContext, r.SignedBytes()))
	}
	n.t.Fatal("it is not admitted")
	return netip.Addr{}
}
