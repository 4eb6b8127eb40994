package mesh_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

const (
	envLaptop   = "HALO_TEST_LAPTOP"
	laptopIface = "lap0"
)

// laptopConfig is what a laptop's WireGuard is told, and what it looks for.
type laptopConfig struct {
	Private, Gateway [32]byte
	Overlay          netip.Addr
	Mesh             netip.Prefix   // its address on the cable
	At               netip.AddrPort // of the gateway's WireGuard
	Targets          []string
}

// laptop is the process of a person's device with a cable to the mesh, on which it is a
// stranger. It says what it reaches by the overlay, and what it loses again.
func laptop() int {
	var c laptopConfig
	err := json.Unmarshal([]byte(os.Getenv(envLaptop)), &c)
	if err == nil {
		err = upLoopback()
	}
	for limit := time.Now().Add(time.Minute); err == nil; time.Sleep(20 * time.Millisecond) {
		link, missing := netlink.LinkByName(laptopIface)
		if missing == nil {
			err = errors.Join(netlink.LinkSetUp(link), netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: c.Mesh.Addr().AsSlice(), Mask: net.CIDRMask(c.Mesh.Bits(), 128)}, Flags: unix.IFA_F_NODAD}))
			break
		}
		if time.Now().After(limit) {
			err = missing
		}
	}
	var wg *overlay.Device
	if err == nil {
		wg, err = overlay.Open(overlay.Config{
			Name: "wg7", Key: c.Private, Port: 51999, UnderlayMTU: 1400, Userspace: true, Addresses: []netip.Prefix{netip.PrefixFrom(c.Overlay, 16)}, Log: slog.New(slog.DiscardHandler),
		})
	}
	if err == nil {
		err = wg.SetPeers([]overlay.Peer{{Node: "gateway", Key: c.Gateway, Keepalive: time.Second,
			Endpoint: c.At, Allowed: []netip.Prefix{paths.OverlayNet}}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	reached := map[string]bool{}
	for {
		for _, t := range c.Targets {
			conn, err := net.DialTimeout("tcp", t, 2*time.Second)
			if err == nil {
				conn.Close()
			}
			if ok := err == nil; ok != reached[t] {
				reached[t] = ok
				fmt.Println(t, ok)
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// TestAVisitor's laptop comes into the overlay, reaches the gateway and, through it, a
// node, and is out when its time ends or it is taken off.
func TestAVisitor(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, key := bundles(t)
	gw, node := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle)
	gw.start()
	node.start()
	ports := hub(t, gw, node)
	until(t, "the node has joined", node.fetch)
	own := identity.New()
	public := own.WireGuardPublic()
	v := model.Visitor{ID: "w-laptop", Name: "laptop", WireGuardKey: base64.StdEncoding.EncodeToString(public[:]), Overlay: netip.MustParseAddr("10.42.255.7"), ExpiresMS: time.Now().Add(time.Hour).UnixMilli()}
	if err := gw.mesh.PutVisitors(t.Context(), []model.Visitor{v}); err != nil {
		t.Fatal(err)
	}
	if err := node.mesh.PutVisitors(t.Context(), nil); err == nil {
		t.Error("a node takes visitors")
	}
	door := fmt.Sprintf("%s:%d", node.status().OverlayV4, paths.DoorPort)
	api := strings.TrimPrefix(paths.OverlayAPI, "http://")
	m, err := gw.mesh.Membership(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := base64.StdEncoding.DecodeString(m.GatewayWireGuardKey)
	if err != nil {
		t.Fatal(err)
	}
	under := identity.Underlay(key.Public(), key.Public())
	c := laptopConfig{Private: own.WireGuard(), Gateway: [32]byte(gateway), Overlay: v.Overlay,
		Mesh: netip.PrefixFrom(identity.Underlay(key.Public(), own.Public()), 64), At: netip.AddrPortFrom(under, paths.WireGuardPort), Targets: []string{api, door}}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	says := startLaptop(t, string(text), ports[0])
	wait := func(lines ...string) {
		t.Helper()
		missing := map[string]bool{}
		for _, l := range lines {
			missing[l] = true
		}
		limit := time.After(patience)
		for len(missing) > 0 {
			select {
			case l := <-says:
				delete(missing, l)
			case <-limit:
				t.Fatalf("the laptop does not say %v", missing)
			}
		}
	}
	wait(api+" true", door+" true")
	for _, p := range gw.status().Overlay {
		if p.Node == v.ID && (len(p.Addresses) != 1 || p.Addresses[0] != "10.42.255.7/32" || p.LastHandshake == nil) {
			t.Errorf("the gateway has it as %+v", p)
		}
	}
	if list := node.status().Overlay; len(list) != 1 {
		t.Errorf("the node has the peers %+v, want the gateway alone", list)
	}
	// Its time ends.
	v.ExpiresMS = time.Now().UnixMilli()
	if err := gw.mesh.PutVisitors(t.Context(), []model.Visitor{v}); err != nil {
		t.Fatal(err)
	}
	wait(api+" false", door+" false")
	v.ExpiresMS = time.Now().Add(time.Hour).UnixMilli()
	if err := gw.mesh.PutVisitors(t.Context(), []model.Visitor{v}); err != nil {
		t.Fatal(err)
	}
	wait(api+" true", door+" true")
	// halo-mesh knows of nobody after a start, until gateway-api has said so again.
	gw.cut()
	wait(api + " false")
	gw.start()
	gw.reconnect(node)
	until(t, "gateway's socket", func() error { _, err := gw.mesh.Status(t.Context()); return err })
	if list := gw.status().Overlay; len(list) > 1 {
		t.Errorf("after a restart the gateway has the peers %+v", list)
	}
}

// startLaptop starts the process in a namespace of its own, on a cable to the hub that a
// port is of, and returns what it says.
func startLaptop(t *testing.T, config, port string) <-chan string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"=laptop", envLaptop+"="+config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	starting <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
	})
	near, far := newCable(t)
	plugging.Lock()
	err = errors.Join(netlink.LinkSetDown(near), netlink.LinkSetName(near, laptopIface), netlink.LinkSetNsPid(near, cmd.Process.Pid))
	plugging.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	at, err := netlink.LinkByName(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkSetMasterByIndex(far, at.Attrs().MasterIndex), netlink.LinkSetUp(far)); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	says := make(chan string, 64)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			says <- s.Text()
		}
	}()
	return says
}
