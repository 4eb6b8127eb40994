//go:build lab

package doctor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	mnl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/mesh"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/doctor"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// These tests run in the test machine, with the images' batman-adv and WireGuard.
// Each member is a process in a namespace of its own: this binary, started again.
func TestMain(m *testing.M) {
	if text := os.Getenv(member); text != "" {
		if err := serve(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testvm.Main(m, testvm.Options{Modules: []string{"batman_adv", "wireguard"}})
}

// member is the environment variable that makes a process one: a config.
const member = "HALO_DOCTOR_MEMBER"

// patience is far beyond what any of this takes.
const patience = 10 * time.Minute

// config says who a member is, and who the other. Keys come from their numbers.
type config struct {
	Self    int
	Gateway bool
	Port    string
}

// key is that of a member, the same in all processes.
func key(n int) identity.Key {
	seed := make([]byte, 32)
	seed[0] = byte(n)
	k, err := identity.FromSeed(seed)
	if err != nil {
		panic(err)
	}
	return k
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, byte(n), byte(1 + n)}) }

// bat is batman-adv as the doctor sees it.
type bat struct {
	*batman.Mesh
}

func (b bat) Flooding() (bool, error) {
	i, err := b.Info()
	return i.ForceFlood, err
}

func (b bat) Servers() (list []doctor.Server, known bool, err error) {
	all, err := b.Gateways()
	for _, g := range all {
		list = append(list, doctor.Server{MAC: g.MAC.String(), Chosen: g.Best, Ours: true})
	}
	return list, true, err
}

// serve is a member: it begins when a line with the WireGuard keys has come, and
// answers lines on its standard input.
func serve(text string) error {
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	network, self, other := key(0).Public(), key(c.Self), key(1-c.Self)
	wg := self.WireGuardPublic()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(wg[:]); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	var peerKey []byte
	if err := json.Unmarshal(in.Bytes(), &peerKey); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	port, err := netlink.LinkByName(c.Port)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetMTU(port, 1532), netlink.LinkSetUp(port)); err != nil {
		return err
	}
	mode := batman.GatewayClient
	if c.Gateway {
		mode = batman.GatewayServer
	}
	m, err := batman.Open(batman.Config{Name: paths.BatIface, Algorithm: batman.IV, MAC: batman.MAC(self.Public(), 0), Gateway: mode})
	if err != nil {
		return err
	}
	if err := errors.Join(m.Enslave(c.Port), mesh.AddressUnderlay(paths.BatIface, identity.Underlay(network, self.Public()))); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	routes := []netip.Prefix{paths.ClientsNet}
	if !c.Gateway {
		routes = append(routes, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	wg0, err := overlay.Open(overlay.Config{
		Name: paths.OverlayIface, Key: self.WireGuard(), Port: paths.WireGuardPort, UnderlayMTU: 1500, Routes: routes,
		Addresses: []netip.Prefix{netip.PrefixFrom(address(c.Self), 16), netip.PrefixFrom(identity.Overlay(network, self.Public()), 64)}, Log: log,
	})
	if err != nil {
		return err
	}
	if !wg0.Kernel() {
		return errors.New("expected the kernel's WireGuard")
	}
	peer := overlay.Peer{
		Node: other.ID(), Key: [32]byte(peerKey), Keepalive: time.Second, Endpoint: netip.AddrPortFrom(identity.Underlay(network, other.Public()), paths.WireGuardPort),
		Allowed: []netip.Prefix{netip.PrefixFrom(address(1-c.Self), 32), netip.PrefixFrom(identity.Overlay(network, other.Public()), 128)},
	}
	nets := peer.Allowed
	if !c.Gateway {
		peer.Allowed = append(slices.Clone(peer.Allowed), routes...)
		nets = peer.Allowed
	}
	if err := wg0.SetPeers([]overlay.Peer{peer}); err != nil {
		return err
	}
	d := doctor.New(doctor.Config{
		Network: network, Node: self.Public(), Iface: paths.BatIface, Underlay: bat{m}, Now: time.Now, Notify: func(model.Event) {}, Log: log,
		Own: func() (doctor.Own, bool) { return doctor.Own{V4: address(c.Self), Routes: routes}, true },
		Around: func() (doctor.Own, []doctor.Peer, bool) {
			p := doctor.Peer{Node: other.ID(), Gateway: !c.Gateway, Overlay: identity.Overlay(network, other.Public()), Underlay: peer.Endpoint.Addr(), Nets: nets}
			if s, err := wg0.Status(); err == nil && len(s) == 1 && s[0].LastHandshake != nil {
				p.Fresh = *s[0].LastHandshake
			}
			return doctor.Own{V4: address(c.Self), Routes: routes}, []doctor.Peer{p}, true
		},
	})
	go func() { _ = d.Run(context.Background()) }() // until the process ends
	for in.Scan() {
		switch in.Text() {
		case "examine":
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			err = out.Encode(d.Examine(ctx))
			cancel()
		case "report":
			err = out.Encode(d.Report())
		case "trap":
			err = errors.Join(trap(m), out.Encode("done"))
		}
		if err != nil {
			return err
		}
	}
	return in.Err()
}

// trap has batman-adv send what goes to a group to those alone that are known to
// listen (BATADV_ATTR_MULTICAST_FORCEFLOOD_ENABLED, command SET_MESH).
func trap(m *batman.Mesh) error {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	family, err := conn.GetFamily("batadv")
	if err != nil {
		return err
	}
	e := mnl.NewAttributeEncoder()
	e.Uint32(3, uint32(m.Index()))
	e.Uint8(55, 0)
	b, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(genetlink.Message{Header: genetlink.Header{Command: 15, Version: family.Version}, Data: b}, family.ID, mnl.Request|mnl.Acknowledge)
	return err
}

// process is a member as the test sees it.
type process struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
}

func start(t *testing.T, c config, port netlink.Link) *process {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), member+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	if err := netlink.LinkSetNsPid(port, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return &process{t, in, json.NewDecoder(out)}
}

func read[T any](p *process) (v T) {
	p.t.Helper()
	if err := p.out.Decode(&v); err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *process) say(v string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, v); err != nil {
		p.t.Fatal(err)
	}
}

// until has a member examine its path until check is content.
func (p *process) until(what string, check func(model.DoctorReport, model.DoctorPeer) bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		p.say("examine")
		r := read[model.DoctorReport](p)
		if len(r.Peers) == 1 && check(r, r.Peers[0]) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not within %s: %+v", what, patience, r)
		}
	}
}

func found(r model.DoctorReport, fault string) model.DoctorFinding {
	for _, f := range r.Findings {
		if f.Fault == fault {
			return f
		}
	}
	return model.DoctorFinding{}
}

func TestFaultsOfTheMeshAreFoundAndMended(t *testing.T) {
	near0, far0 := nstest.Cable(t, "port0", "hub0")
	near1, far1 := nstest.Cable(t, "port1", "hub1")
	size := func(mtu int) {
		t.Helper()
		if err := errors.Join(netlink.LinkSetMTU(far0, mtu), netlink.LinkSetMTU(far1, mtu)); err != nil {
			t.Fatal(err)
		}
	}
	size(1532)
	nstest.Hub(t, "hub", far0, far1)
	gateway, node := start(t, config{Self: 0, Gateway: true, Port: "port0"}, near0), start(t, config{Self: 1, Port: "port1"}, near1)
	a, b := read[[]byte](gateway), read[[]byte](node)
	for p, other := range map[*process][]byte{gateway: b, node: a} {
		text, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		p.say(string(text))
	}
	well := func(r model.DoctorReport, p model.DoctorPeer) bool {
		return p.Answers && p.OverlayMTU == 1420 && p.UnderlayMTU == 1500 && p.Multicast == "yes" && p.Limit == 0 && p.Fragment == 0 && r.Flooding != nil && *r.Flooding
	}
	node.until("the node's path is well", well)
	gateway.until("the gateway's path is well", well)

	t.Run("multicast is swallowed", func(t *testing.T) {
		node.say("trap")
		read[string](node)
		node.until("it is found and mended", func(r model.DoctorReport, p model.DoctorPeer) bool {
			f := found(r, model.FaultMulticast)
			return f.Mended != nil && f.Treatment != "" && well(r, p)
		})
	})
	t.Run("MTU is too large", func(t *testing.T) {
		// batman-adv sends unicast frames of up to 1532 octets whole: it knows its own
		// port's MTU, not that of the switch.
		size(1450)
		for _, p := range []*process{node, gateway} {
			p.until("it is found and mended", func(r model.DoctorReport, p model.DoctorPeer) bool {
				f := found(r, model.FaultMTU)
				return f.Mended != nil && p.Limit >= 1280 && p.Limit <= 1450-24-80 && p.Fragment >= 1280 && p.Fragment <= 1450-24
			})
		}
		size(1532)
		for _, p := range []*process{node, gateway} {
			p.until("it is well again", func(r model.DoctorReport, p model.DoctorPeer) bool {
				return well(r, p) && found(r, model.FaultMTU).Ended != nil
			})
		}
	})
	t.Run("less than IPv6 needs of the overlay", func(t *testing.T) {
		size(1340) // batman-adv and WireGuard leave 1236 octets of it
		node.until("it is mended by fragments", func(r model.DoctorReport, p model.DoctorPeer) bool {
			return found(r, model.FaultMTU).Mended != nil && p.Limit == 0 && p.Fragment >= 1280
		})
	})
}
