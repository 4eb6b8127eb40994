package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"halo.internal/ctl"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// The tests of this file run whole daemons, each in a process and a network
// namespace of its own: this binary, started again. A cable stands for the
// mesh; everything above it is real: announcements, join over TLS, WireGuard in
// the process.
func TestMain(m *testing.M) {
	switch role := os.Getenv(envRole); role {
	case "":
	case "laptop":
		os.Exit(laptop())
	default:
		os.Exit(device(model.Role(role)))
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "64"); err != nil { // see turn
		panic(err)
	}
	go func() {
		runtime.LockOSThread()
		for f := range starting {
			f()
		}
	}()
	os.Exit(nstest.Main(m))
}

// turns are how many tests run side by side, besides those that last longest: these begin
// at once, since they wait for what takes its time, and since nothing says in which order
// testing begins parallel tests. Devices wait for each other more than they work.
var turns = make(chan struct{}, 4)

// turn is Parallel for a test that is not among the longest.
func turn(t *testing.T) {
	t.Parallel()
	turns <- struct{}{}
	t.Cleanup(func() { <-turns })
}

// starting takes what is to be done on a thread that lasts: boards are killed when the
// thread that has started them ends, and those end that were in another namespace.
var starting = make(chan func())

// patience is how long anything may take; nothing waits for it to pass.
const patience = 6 * time.Minute

// board is a device that can be started and cut off from power.
type board struct {
	t    *testing.T
	role model.Role
	root string
	boot int
	skew time.Duration // of its clock at the start
	env  []string
	cmd  *exec.Cmd
	mesh *local.Mesh
	wire netlink.Link // the hub that it is on; nil: it has a cable for a mesh
}

func newBoard(t *testing.T, role model.Role, b []byte) *board {
	t.Helper()
	root, err := os.MkdirTemp("", "halo-mesh-") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, d := range []string{paths.Boot, paths.Perm, filepath.Dir(paths.Resolv)} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := &board{t: t, role: role, root: root}
	if b != nil {
		d.insert(b)
	}
	return d
}

// insert puts a bundle into the boot partition.
func (d *board) insert(b []byte) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.root, paths.Bundle), b, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// start powers the board on.
func (d *board) start() {
	d.t.Helper()
	d.boot++
	if err := os.RemoveAll(filepath.Join(d.root, "run")); err != nil { // RAM
		d.t.Fatal(err)
	}
	d.launch()
}

// launch starts the processes, as gokrazy does after one ended.
func (d *board) launch() {
	d.t.Helper()
	d.cmd = exec.Command("/proc/self/exe")
	d.cmd.Env = append(os.Environ(), envRole+"="+string(d.role), envRoot+"="+d.root,
		fmt.Sprintf("%s=boot-%d", envBoot, d.boot), fmt.Sprintf("%s=%s", envSkew, d.skew))
	d.cmd.Env = append(d.cmd.Env, d.env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(d.root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	started := make(chan error)
	starting <- func() { started <- d.cmd.Start() }
	if err := <-started; err != nil {
		d.t.Fatal(err)
	}
	d.mesh = meshOf(d.root)
	cmd := d.cmd
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
		if d.t.Failed() {
			b, _ := os.ReadFile(filepath.Join(d.root, "log"))
			d.t.Logf("log of the %s:\n%s", d.role, b)
		}
	})
}

// cut takes the power away.
func (d *board) cut() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	_ = d.cmd.Wait() // killed, as it reports
}

// connect lays a cable between two boards.
func connect(t *testing.T, a, b *board) {
	t.Helper()
	near, far := newCable(t)
	plugIn(t, near, a, paths.BatIface)
	plugIn(t, far, b, paths.BatIface)
}

// plugging is held while a cable's end has the name, in this namespace still, that
// it is to have at a board.
var plugging sync.Mutex

// plugIn gives a board the end of a cable, as the interface of that name.
func plugIn(t *testing.T, end netlink.Link, d *board, name string) {
	t.Helper()
	plugging.Lock()
	defer plugging.Unlock()
	if err := errors.Join(netlink.LinkSetDown(end), netlink.LinkSetName(end, name)); err != nil {
		t.Fatal(err)
	}
	until(t, "an end of the cable to be plugged in", func() error {
		err := netlink.LinkSetNsPid(end, d.cmd.Process.Pid)
		if errors.Is(err, unix.EEXIST) {
			err = errors.Join(err, d.unplug())
		}
		return err
	})
}

// laid counts cables and hubs, so that each has a name of its own: tests run side
// by side, and the kernel takes away those of an earlier one in its own good time.
var laid atomic.Uint32

func newCable(t *testing.T) (near, far netlink.Link) {
	t.Helper()
	n := laid.Add(1)
	return nstest.Cable(t, fmt.Sprintf("near%d", n), fmt.Sprintf("far%d", n))
}

// hub lays cables from boards to one hub and returns the names of its ports.
func hub(t *testing.T, boards ...*board) (names []string) {
	t.Helper()
	var ports []netlink.Link
	for _, d := range boards {
		near, far := newCable(t)
		plugIn(t, near, d, paths.BatIface)
		ports, names = append(ports, far), append(names, far.Attrs().Name)
	}
	nstest.Hub(t, fmt.Sprintf("hub%d", laid.Add(1)), ports...)
	return names
}

// unplug removes a cable whose other end was at a board that lost its power: the
// kernel takes the namespace of a killed process down, and with it the cable, in
// its own good time.
func (d *board) unplug() error {
	ns, err := netns.GetFromPid(d.cmd.Process.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	there, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer there.Close()
	old, err := there.LinkByName(paths.BatIface)
	if err != nil {
		return err
	}
	return there.LinkDel(old)
}

// until waits for f to return nothing.
func until(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// fetch gets a page of the gateway through the node's overlay.
func (d *board) fetch() error {
	return d.ask("/fetch")
}

func (d *board) ask(route string) error {
	c := http.Client{Timeout: patience + 20*time.Second, Transport: unixTransport(filepath.Join(d.root, probeSocket))}
	resp, err := c.Get("http://probe" + route)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s %v", route, resp.Status, b, err)
	}
	return nil
}

// meshOf returns a client for the halo-mesh of a board, which has the time that it needs:
// where there is no processor for it, it does not hang.
func meshOf(root string) *local.Mesh {
	socket := filepath.Join(root, paths.MeshSocket)
	return local.NewMeshOver(unixTransport(socket), socket, patience)
}

// status is the present one. When the kernel takes its time, as it does with namespaces that
// come and go, or there is no processor, there is an earlier one or none: it is asked again.
func (d *board) status() (s model.MeshStatus) {
	d.t.Helper()
	until(d.t, "status of the "+string(d.role), func() (err error) {
		s, err = d.mesh.Status(d.t.Context())
		if err == nil && s.StaleMS != 0 {
			err = fmt.Errorf("it is %d ms old", s.StaleMS)
		}
		return err
	})
	return s
}

// peerList is the list of members on the card of a node in the network of that bundle.
func (d *board) peerList(gateway []byte) (peerlist.List, error) {
	b, err := bundle.Parse("gateway", gateway)
	if err != nil {
		return peerlist.List{}, err
	}
	network, err := identity.ParsePublicKey(b.Gateway.PublicKey)
	if err != nil {
		return peerlist.List{}, err
	}
	raw, err := os.ReadFile(filepath.Join(d.root, paths.State, paths.PeerList))
	if err != nil {
		return peerlist.List{}, err
	}
	return peerlist.Parse(network, raw)
}

// events are those that it has kept; one that has not answered in time is asked again.
func (d *board) events() (list []model.Event) {
	d.t.Helper()
	until(d.t, "events of the "+string(d.role), func() (err error) {
		list, err = d.mesh.Events(d.t.Context(), 0, 0)
		return err
	})
	return list
}

func (d *board) hasEvent(kind string) error {
	d.t.Helper()
	list := d.events()
	if !slices.ContainsFunc(list, func(e model.Event) bool { return e.Kind == kind }) {
		return fmt.Errorf("no event %s among %d", kind, len(list))
	}
	return nil
}

// healthy tells what is missing on a board.
func (d *board) healthy() error {
	r, err := d.mesh.Health(context.Background())
	if err == nil && r.State != health.OK && r.State != health.Degraded {
		err = fmt.Errorf("%s: %s: %s", r.State, r.Missing, r.Detail)
	}
	return err
}

// bundles makes a network: the gateway's bundle, a node's, and the key.
func bundles(t *testing.T) (gateway, node []byte, key identity.Key) { return bundlesFor(t, 1) }

// bundlesFor makes a network whose token admits that many nodes.
func bundlesFor(t *testing.T, nodes int) (gateway, node []byte, key identity.Key) {
	t.Helper()
	key = identity.New()
	b := bundle.Bundle{
		Version: bundle.Version, Network: "test-ridge", Role: model.RoleGateway, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64(), Seed: b64(key.Seed()), ClaimCode: "7K3M-Q0ZT-4WXPB"},
		Mesh:    bundle.Mesh{SSID: "TEST-1", PSK: "correct horse battery", Routing: "BATMAN_IV"},
	}
	gateway, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b.Role, b.Gateway.Seed, b.Gateway.ClaimCode, b.Name = model.RoleNode, "", "", "mast"
	b.Join.Token = identity.NewJoinToken(uint32(nodes), time.Now().Add(time.Hour)).Text(key)
	if node, err = b.Marshal(); err != nil {
		t.Fatal(err)
	}
	return gateway, node, key
}

func TestNetworkComesUpAndReturns(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, key := bundles(t)
	gw, node := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle)
	node.skew = -20 * 365 * 24 * time.Hour // a board without a clock
	gw.start()
	node.start()
	connect(t, gw, node)

	until(t, "first joining", node.healthy)
	until(t, "page through the overlay", node.fetch)
	s := node.status()
	if !s.Joined || s.Join != model.JoinJoined || s.Name != "mast" || s.Network != "test-ridge" || s.Gateway != key.ID() {
		t.Errorf("node's status: %+v", s)
	}
	if s.Clock != model.ClockGateway && s.Clock != model.ClockNone || time.Since(s.Time).Abs() > time.Minute {
		t.Errorf("node's clock: %s %s, want the gateway's time", s.Time, s.Clock)
	}
	if err := node.hasEvent("clock.corrected"); err != nil {
		t.Error(err)
	}
	if len(s.Overlay) != 1 || s.Overlay[0].LastHandshake == nil || s.Overlay[0].Node != key.ID() {
		t.Errorf("node's overlay: %+v", s.Overlay)
	}
	first := s.Node
	for _, d := range []*board{gw, node} { // both were up before their cable
		if d.hasEvent("overlay.failed") == nil {
			t.Errorf("the %s took its wait for the underlay for a failure", d.role)
		}
	}
	for _, f := range []string{gw.root, node.root} {
		b, err := os.ReadFile(filepath.Join(f, paths.Bundle))
		if err != nil || strings.Contains(string(b), "correct horse battery") {
			t.Errorf("secrets are still in the boot partition of %s (%v)", f, err)
		}
	}

	t.Run("node loses power", func(t *testing.T) {
		node.cut()
		node.start()
		node.reconnect(gw)
		until(t, "node after a power cut", node.fetch)
		s := node.status()
		if s.Node != first || s.BootCounter != 2 {
			t.Errorf("got node %s boot %d, want %s boot 2", s.Node, s.BootCounter, first)
		}
		until(t, "gateway sees the restart", func() error { return gw.hasEvent("overlay.peer-restarted") })
	})
	t.Run("gateway loses power", func(t *testing.T) {
		gw.cut()
		gw.start()
		gw.reconnect(node)
		until(t, "gateway after a power cut", node.fetch)
		until(t, "node sees the restart", func() error { return node.hasEvent("gateway.restarted") })
	})
	t.Run("both lose power", func(t *testing.T) {
		gw.cut()
		node.cut()
		gw.start()
		node.start()
		connect(t, gw, node)
		until(t, "both after a power cut", node.fetch)
		if s := node.status(); s.BootCounter != 3 {
			t.Errorf("got boot %d, want 3", s.BootCounter)
		}
	})
	t.Run("process restarts", func(t *testing.T) {
		before := node.status()
		last := lastEvent(t, node)
		node.cut()
		node.launch() // no new boot, /run is still there
		node.reconnect(gw)
		until(t, "node after a restart of halo-mesh", node.fetch)
		if s := node.status(); s.BootCounter != before.BootCounter {
			t.Errorf("got boot %d, want %d still", s.BootCounter, before.BootCounter)
		}
		if now := lastEvent(t, node); now.Seq <= last.Seq {
			t.Errorf("events went from %d to %d, want them to go on", last.Seq, now.Seq)
		}
	})
}

// TestNodesSpeakDirectly has two nodes learn of each other from the gateway's
// list, and speak without it.
func TestNodesSpeakDirectly(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, _ := bundles(t)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	hub(t, gw, a, b)
	until(t, "both have joined", func() error { return errors.Join(a.fetch(), b.fetch()) })
	ids := map[*board]string{a: a.status().Node, b: b.status().Node}
	peer := func(of, other *board) (model.OverlayPeer, error) {
		for _, p := range of.status().Overlay {
			if p.Node == ids[other] {
				return p, nil
			}
		}
		return model.OverlayPeer{}, fmt.Errorf("%s is no peer", ids[other])
	}
	address := func(of, other *board) string {
		var found string
		until(t, "each is the other's peer", func() error {
			p, err := peer(of, other)
			if err == nil && len(p.Addresses) != 4 { // its own and its clients', of IPv4 and IPv6
				err = fmt.Errorf("got %+v", p)
			}
			if err == nil {
				found, _, _ = strings.Cut(p.Addresses[0], "/")
			}
			return err
		})
		return found
	}
	toB, toA := address(a, b), address(b, a)
	speak := func() {
		t.Helper()
		for _, way := range []struct {
			from, to *board
			address  string
		}{{a, b, toB}, {b, a, toA}} {
			before, err := peer(way.from, way.to)
			if err != nil {
				t.Fatal(err)
			}
			until(t, "a page of the other node", func() error { return way.from.ask("/reach?address=" + way.address) })
			after, err := peer(way.from, way.to)
			if err != nil || after.LastHandshake == nil || after.RxBytes <= before.RxBytes {
				t.Errorf("the page did not come from the peer: before %+v, after %+v, %v", before, after, err)
			}
		}
	}
	speak()
	gw.cut()
	speak()
}

// A fresh card takes the gateway's place, though the lost one had a higher epoch, or the
// same: the node does not go with it, shows it why over a restart of its own, and asks to
// join it anew, though its token is no use any more.
func TestAFreshCardOfALowerEpochTakesTheGatewaysPlace(t *testing.T) { testFreshCard(t, "5") }

func TestAFreshCardOfTheSameEpochTakesTheGatewaysPlace(t *testing.T) { testFreshCard(t, "7") }

func testFreshCard(t *testing.T, epoch string) {
	t.Parallel()
	gwBundle, nodeBundle, _ := bundles(t)
	card := func(epoch string) *board {
		d := newBoard(t, model.RoleGateway, gwBundle)
		if err := os.WriteFile(filepath.Join(d.root, epochFile), []byte(epoch), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
		return d
	}
	lost, node := card("7"), newBoard(t, model.RoleNode, nodeBundle)
	node.start()
	connect(t, lost, node)
	until(t, "page of the first gateway", node.fetch)
	lost.cut()

	node.cut()
	node.start()
	fresh := card(epoch)
	wait := filepath.Join(fresh.root, waitFile)
	if err := os.WriteFile(wait, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Before it knows its epoch it announces none, and a node would show it the
	// higher one without a word of refusal.
	until(t, "the fresh card announces its epoch", func() error {
		s, err := fresh.mesh.Status(t.Context())
		if err == nil && (s.Announcing == nil || fmt.Sprint(s.Announcing.Epoch) != epoch) {
			err = fmt.Errorf("it announces %+v, want epoch %s", s.Announcing, epoch)
		}
		return err
	})
	connect(t, fresh, node)
	if epoch != "7" {
		until(t, "the node says why it refuses the fresh card", func() error { return node.hasEvent("gateway.epoch-old") })
	}
	until(t, "the node asks to join", func() error { return node.hasEvent("join.pending") })
	if s := fresh.status(); s.HeardEpoch != 7 || s.Announcing.Epoch != 8 {
		t.Errorf("the fresh card heard of epoch %d and announces %d, want 7 and 8", s.HeardEpoch, s.Announcing.Epoch)
	}
	until(t, "the node's health names what it waits for", func() error {
		r, err := node.mesh.Health(t.Context())
		for _, c := range r.Checks {
			if c.Name == "join" && c.State == health.Degraded && strings.Contains(c.Detail, "approve") {
				return err
			}
		}
		return errors.Join(err, fmt.Errorf("got %+v", r.Checks))
	})
	fresh.cut()
	if err := os.Remove(wait); err != nil { // approved
		t.Fatal(err)
	}
	fresh.start() // the node hears that, and does not wait out its half minute
	fresh.reconnect(node)
	until(t, "page of the fresh gateway", node.fetch)
	if m, err := node.mesh.Membership(t.Context()); err != nil || m.Epoch != 8 {
		t.Errorf("the node's membership: %+v, %v, want one of epoch 8", m, err)
	}
	if s := node.status(); s.Epoch != 8 {
		t.Errorf("the node tells of epoch %d, want 8", s.Epoch)
	}

	until(t, "the node has the list of the fresh gateway", func() error {
		l, err := node.peerList(gwBundle)
		if err == nil && l.Epoch != 8 {
			err = fmt.Errorf("got that of epoch %d, want 8", l.Epoch)
		}
		return err
	})

	// From now on it is the lost card that is old, also for a node that restarts.
	fresh.cut()
	node.cut()
	node.start()
	lost.start()
	connect(t, lost, node)
	until(t, "the node shows the card that came back", func() error {
		s, err := lost.mesh.Status(t.Context())
		if err == nil && s.HeardEpoch != 8 {
			err = fmt.Errorf("it heard of epoch %d, want 8", s.HeardEpoch)
		}
		return err
	})
	if s := node.status(); s.Epoch != 8 {
		t.Errorf("with the old card, the node tells of epoch %d, want 8: it must not be commanded by that", s.Epoch)
	}
	until(t, "the node's health says why it has no gateway", func() error {
		r, err := node.mesh.Health(t.Context())
		for _, c := range r.Checks {
			if c.Name == "gateway" && strings.Contains(c.Detail, "is refused, since 8 was heard") {
				return err
			}
		}
		return errors.Join(err, fmt.Errorf("got %+v", r.Checks))
	})
}

// joinHub lays a cable from a board to the hub that the port of that name belongs to.
func joinHub(t *testing.T, port string, d *board) {
	t.Helper()
	near, far := newCable(t)
	plugIn(t, near, d, paths.BatIface)
	of, err := netlink.LinkByName(port)
	if err == nil {
		err = netlink.LinkSetMasterByIndex(far, of.Attrs().MasterIndex)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// standsDown tells what is missing for a gateway to have stood down, and to say so.
func (d *board) standsDown(network identity.PublicKey) error {
	s, err := d.mesh.Status(context.Background())
	if err != nil {
		return err
	}
	if s.Twin == nil || !s.Twin.StandsDown {
		return fmt.Errorf("status says %+v of another gateway", s.Twin)
	}
	for _, i := range s.Interfaces {
		if i.Name == paths.BatIface && slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == identity.Underlay(network, network) }) {
			return fmt.Errorf("it has the gateway's address still: %v", i.Addresses)
		}
	}
	r, err := d.mesh.Health(context.Background())
	for _, c := range r.Checks {
		if c.Name == "gateway" && c.State == health.Degraded && strings.Contains(c.Detail, "stands down") && strings.Contains(c.Detail, "switch one of the two off") {
			return err
		}
	}
	return errors.Join(err, fmt.Errorf("health says %+v", r.Checks))
}

// A second gateway, made from the same bundle as one that lives, stands down: the node
// stays where it is. When the first loses its power the second takes its place, and
// then it is the first that comes too late. These are three tests, since parts of one
// that run side by side begin when all other tests have, and last as long as any.
func TestASecondGatewayOfTheSameEpochStandsDown(t *testing.T) { testSecondGateway(t, "7", "7") }

func TestASecondGatewayOfALowerEpochStandsDown(t *testing.T) { testSecondGateway(t, "7", "5") }

func TestASecondGatewayOfAHigherEpochStandsDown(t *testing.T) { testSecondGateway(t, "7", "9") }

func testSecondGateway(t *testing.T, firstEpoch, secondEpoch string) {
	t.Parallel()
	gwBundle, nodeBundle, key := bundles(t)
	twins := []string{envTwins + "=1"}
	card := func(epoch string) *board {
		d := newBoard(t, model.RoleGateway, gwBundle)
		if err := os.WriteFile(filepath.Join(d.root, epochFile), []byte(epoch), 0o600); err != nil {
			t.Fatal(err)
		}
		d.env = twins
		d.start()
		return d
	}
	first, node := card(firstEpoch), newBoard(t, model.RoleNode, nodeBundle)
	node.env = twins
	node.start()
	ports := hub(t, first, node)
	until(t, "page of the first gateway", node.fetch)
	member := func() model.Membership {
		t.Helper()
		m, err := node.mesh.Membership(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	joined := member()

	second := card(secondEpoch)
	until(t, "the second gateway has what to announce", func() error {
		s, err := second.mesh.Status(t.Context())
		if err == nil && s.Announcing == nil {
			err = errors.New("nothing")
		}
		return err
	})
	joinHub(t, ports[1], second)
	until(t, "the second stands down", func() error { return second.standsDown(key.Public()) })
	until(t, "both say so", func() error {
		return errors.Join(first.hasEvent("gateway.twin"), second.hasEvent("gateway.twin"))
	})
	if err := second.mesh.PutProfile(t.Context(), model.ProfileChange{RotateSecret: true}); err == nil || !strings.Contains(err.Error(), "stood down") {
		t.Errorf("the second gateway is asked for another secret: got %v, want a refusal", err)
	}
	// Long enough for the node to hear of it, and to be asked by nobody else.
	until(t, "the first knows that the second stands down", func() error {
		s := first.status()
		if s.Twin == nil || s.Twin.StandsDown || time.Since(s.Twin.Heard) > time.Hour {
			return fmt.Errorf("it says %+v", s.Twin)
		}
		return node.fetch()
	})
	if s := second.status(); s.HeardEpoch != 0 || fmt.Sprint(s.Announcing.Epoch) != secondEpoch {
		t.Errorf("the second heard of epoch %d and has %d: it must not outbid the living one", s.HeardEpoch, s.Announcing.Epoch)
	}
	if now := member(); now.GatewayWireGuardKey != joined.GatewayWireGuardKey || now.Epoch != joined.Epoch {
		t.Errorf("the node's membership was %+v and is %+v", joined, now)
	}
	if r, err := first.mesh.Health(t.Context()); err != nil || r.State != health.OK && r.State != health.Degraded {
		t.Errorf("the first: %+v, %v", r, err)
	}

	first.cut()
	until(t, "the second takes the first's place", func() error { return second.hasEvent("gateway.twin-gone") })
	until(t, "page of the second gateway", func() error {
		if m := member(); m.GatewayWireGuardKey == joined.GatewayWireGuardKey {
			return fmt.Errorf("the node is a member of the first still: %+v", m)
		}
		return node.fetch()
	})
	until(t, "the node has the list of the second gateway", func() error {
		l, err := node.peerList(gwBundle)
		if want := second.status().Announcing.Epoch; err == nil && l.Epoch != want {
			err = fmt.Errorf("got that of epoch %d, want %d", l.Epoch, want)
		}
		return err
	})

	first.start()
	joinHub(t, ports[1], first)
	until(t, "the first came too late", func() error { return first.standsDown(key.Public()) })
	until(t, "page of the second gateway still", node.fetch) // both had one address for a moment
}

func lastEvent(t *testing.T, d *board) model.Event {
	t.Helper()
	list := d.events()
	if len(list) == 0 {
		t.Fatal("there are no events")
	}
	return list[len(list)-1]
}

// reconnect lays a new cable to a board that kept running: a namespace takes
// its end of the old one with it, which removes the other end.
func (d *board) reconnect(other *board) {
	d.t.Helper()
	connect(d.t, d, other)
}

func TestGatewayWithoutBundleFoundsANetwork(t *testing.T) {
	turn(t)
	gw := newBoard(t, model.RoleGateway, nil)
	gw.start()
	until(t, "gateway's socket", func() error { _, err := gw.mesh.Status(t.Context()); return err })
	s := gw.status()
	if !strings.HasPrefix(s.Network, "halo-") || s.NetworkKey != s.PublicKey {
		t.Errorf("status: %+v", s)
	}
	b, err := os.ReadFile(filepath.Join(gw.root, paths.State, paths.BundleCopy))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := bundle.Parse("kept", b)
	if err != nil || kept.Gateway.ClaimCode == "" {
		t.Fatalf("kept bundle: %v", err)
	}
	notice := filepath.Join(gw.root, paths.ClaimNotice)
	if err := gw.mesh.PutClaimCode(t.Context(), kept.Gateway.ClaimCode); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(notice); err != nil || !strings.Contains(string(b), kept.Gateway.ClaimCode) {
		t.Errorf("notice: %q, %v", b, err)
	}
	if err := gw.mesh.DeleteClaimCode(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(notice); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("notice is still there: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(gw.root, paths.State, paths.BundleCopy)); err != nil || strings.Contains(string(b), kept.Gateway.ClaimCode) {
		t.Errorf("claim code is still in the kept bundle (%v)", err)
	}
	log, err := os.ReadFile(filepath.Join(gw.root, "log"))
	if err != nil || strings.Contains(string(log), kept.Gateway.ClaimCode) || strings.Contains(string(log), kept.Mesh.PSK) {
		t.Errorf("the log has a secret (%v)", err)
	}
	gw.cut()
	torn := filepath.Join(gw.root, paths.State, ".tmp-1") // of a write that the cut ended
	if err := os.WriteFile(torn, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	gw.start()
	until(t, "gateway's socket", func() error { _, err := gw.mesh.Status(t.Context()); return err })
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a power cut left is still there: %v", err)
	}
	if again := gw.status(); again.Network != s.Network || again.Node != s.Node || again.BootCounter != 2 {
		t.Errorf("after a restart: %+v", again)
	}
}

func TestNodeWithoutUsableBundleSaysSo(t *testing.T) {
	turn(t)
	_, good, _ := bundles(t)
	gwBundle, _, _ := bundles(t)
	for _, tc := range []struct {
		name   string
		bundle []byte
		want   string
	}{
		{"none", nil, "no network bundle"},
		{"cut in half", good[:len(good)/2], "cut short"},
		{"gateway's", gwBundle, "expected node"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newBoard(t, model.RoleNode, tc.bundle)
			d.start()
			until(t, "health", func() error {
				r, err := d.mesh.Health(t.Context())
				if err == nil && (r.Missing != "bundle" || !strings.Contains(r.Detail, tc.want)) {
					err = fmt.Errorf("missing %q: %q, want bundle: …%s…", r.Missing, r.Detail, tc.want)
				}
				return err
			})
			if s := d.status(); s.Join != model.JoinNoBundle || s.Node == "" {
				t.Errorf("status: %+v", s)
			}
			d.says(ctl.ExitNotFound, "this device has no network\nnext: haloctl mesh status", "--local", "net", "leases")
			if tc.bundle != nil {
				if err := d.hasEvent("bundle.refused"); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(filepath.Join(d.root, paths.Bundle)); err != nil || string(b) != string(tc.bundle) {
					t.Errorf("a bundle that was not imported was changed (%v)", err)
				}
			}
		})
	}
}

func TestTermination(t *testing.T) {
	turn(t)
	d := newBoard(t, model.RoleGateway, nil)
	d.start()
	until(t, "socket", func() error { _, err := d.mesh.Status(t.Context()); return err })
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("ended with %v, want status 0", err)
	}
	if b, err := os.ReadFile(filepath.Join(d.root, paths.State, paths.Clock)); err != nil || len(b) == 0 {
		t.Errorf("clock was not saved at the end: %v", err)
	}
	var s struct{ Quality string }
	b, err := os.ReadFile(filepath.Join(d.root, paths.RunClock))
	if err != nil || json.Unmarshal(b, &s) != nil || s.Quality == "" {
		t.Errorf("quality of the clock was not kept for a restart: %q, %v", b, err)
	}
}

// A data partition that is not there: everything works, nothing is kept, and
// everybody is told.
func TestNodeWithoutDataPartitionIsVolatile(t *testing.T) {
	turn(t)
	gwBundle, _, key := bundles(t)
	gw := newBoard(t, model.RoleGateway, gwBundle)
	perm := filepath.Join(gw.root, paths.Perm)
	if err := errors.Join(os.RemoveAll(perm), os.WriteFile(perm, nil, 0o400)); err != nil {
		t.Fatal(err)
	}
	gw.start()
	until(t, "health names perm", func() error {
		r, err := gw.mesh.Health(t.Context())
		if err == nil && !slices.ContainsFunc(r.Checks, func(c health.Check) bool { return c.Name == "perm" && c.State == health.Degraded }) {
			err = fmt.Errorf("got %+v", r.Checks)
		}
		return err
	})
	until(t, "events say so", func() error { // of what health names they tell a moment later
		return errors.Join(gw.hasEvent("perm.failing"), gw.hasEvent("bundle.not-kept"), gw.hasEvent("identity.not-kept"))
	})
	if s := gw.status(); !s.Volatile || s.Node != key.ID() || s.Network != "test-ridge" {
		t.Errorf("status: %+v", s)
	}
	if b, err := os.ReadFile(filepath.Join(gw.root, paths.Bundle)); err != nil || string(b) != string(gwBundle) {
		t.Errorf("the only copy of the bundle was changed (%v)", err)
	}
	if s, err := identity.Load(filepath.Join(gw.root, paths.RunIdentity), nil); err != nil || s.Key.ID() != key.ID() {
		t.Errorf("identity for the other processes: %v, %v", s.Key, err)
	}
	// A card that is well again has all by the time that the process ends, at the latest.
	if err := errors.Join(os.Remove(perm), os.Mkdir(perm, 0o755), gw.cmd.Process.Signal(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	until(t, "what it could not keep to be kept", func() error {
		s, err := identity.Load(filepath.Join(gw.root, paths.State, paths.Identity), nil)
		if err == nil && (s.Key.ID() != key.ID() || s.BootCounter != 1) {
			err = fmt.Errorf("got start %d of %s", s.BootCounter, s.Key.ID())
		}
		_, errBundle := os.Stat(filepath.Join(gw.root, paths.State, paths.BundleCopy))
		return errors.Join(err, errBundle)
	})
}
