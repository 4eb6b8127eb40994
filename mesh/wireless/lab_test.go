//go:build lab

package wireless_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"halo.internal/drivers/nl80211"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/testvm"
	"halo.internal/local"
	"halo.internal/mesh"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
	"halo.internal/model/pcap"
)

// These tests run whole daemons in the test machine, each in a process and a
// network namespace of its own, with nothing between them but air.
func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		os.Exit(device(model.Role(role), os.Getenv(envRoot)))
	}
	testvm.Main(m, testvm.Options{Modules: []string{"mac80211_hwsim radios=0", "batman_adv", "wireguard"}, MemoryMB: 768})
}

const (
	envRole = "HALO_LAB_ROLE"
	envRoot = "HALO_LAB_ROOT"
	envBoot = "HALO_LAB_BOOT"

	// patience is far beyond what any of this takes.
	patience = 10 * time.Minute
)

// device is the process of a board: halo-mesh as it is on boards, but for the
// places of its files and its clock.
func device(role model.Role, root string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getenv(envWhole) != "" {
		go func() {
			if err := whole(ctx, role, root, log); err != nil {
				fmt.Fprintln(os.Stderr, "the board's other processes:", err)
			}
		}()
	}
	err := mesh.Run(ctx, mesh.Config{
		Root: root, Role: role, BootID: os.Getenv(envBoot), Boot: plainBoot{}, Clock: still{},
		Console:  func() (io.WriteCloser, error) { return os.Create(filepath.Join(root, "console")) },
		Underlay: mesh.NewUnderlay, Log: log,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type plainBoot struct{}

func (plainBoot) Writable(f func() error) error { return f() }

// still is the machine's clock, which nobody sets.
type still struct{}

func (still) Now() time.Time          { return time.Now() }
func (still) Set(time.Time) error     { return nil }
func (still) RTC() (time.Time, error) { return time.Time{}, errors.New("no battery-backed clock") }

// sky is what the boards share.
type sky struct {
	t     testing.TB
	conn  *nl80211.Conn
	hwsim *hwsim.Conn
	made  int
}

func newSky(t testing.TB) *sky {
	t.Helper()
	s := &sky{t: t}
	var err error
	s.hwsim, err = hwsim.Dial(0)
	s.ok(err)
	t.Cleanup(func() { s.hwsim.Close() })
	s.conn, err = nl80211.Dial(nl80211.Config{})
	s.ok(err)
	t.Cleanup(func() { s.conn.Close() })
	s.ok(s.conn.ReloadRegulatory()) // of the images' firmware
	return s
}

func (s *sky) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// until polls what no event tells.
func (s *sky) until(what string, ok func() error) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// board is a device of the network.
type board struct {
	sky  *sky
	role model.Role
	root string
	boot int // starts of the machine
	cmd  *exec.Cmd
	ns   *os.File // its network namespace, which stays when the process dies
	mesh *local.Mesh
}

func (s *sky) board(role model.Role, b bundle.Bundle) *board {
	s.t.Helper()
	root, err := os.MkdirTemp("", "halo-air-")
	s.ok(err)
	s.t.Cleanup(func() { os.RemoveAll(root) })
	for _, d := range []string{paths.Boot, paths.Perm} {
		s.ok(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	text, err := b.Marshal()
	s.ok(err)
	s.ok(os.WriteFile(filepath.Join(root, paths.Bundle), text, 0o600))
	d := &board{sky: s, role: role, root: root, mesh: local.NewMesh(filepath.Join(root, paths.MeshSocket))}
	d.start()
	d.ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", d.cmd.Process.Pid))
	s.ok(err)
	s.t.Cleanup(func() { d.ns.Close() })
	return d
}

// start starts the board's process: at first in a new namespace.
func (d *board) start() {
	d.sky.t.Helper()
	d.cmd = exec.Command("/proc/self/exe")
	d.cmd.Env = append(os.Environ(), envRole+"="+string(d.role), envRoot+"="+d.root, fmt.Sprintf("%s=boot-%d", envBoot, d.boot))
	log, err := os.OpenFile(filepath.Join(d.root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	d.sky.ok(err)
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.ns == nil {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		d.sky.ok(d.cmd.Start())
	} else {
		d.sky.ok(within(d.ns, d.cmd.Start))
	}
	cmd := d.cmd
	d.sky.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
		if d.sky.t.Failed() {
			b, _ := os.ReadFile(filepath.Join(d.root, "log"))
			d.sky.t.Logf("log of the %s:\n%s", d.role, b)
		}
	})
}

// reboot cuts the board's power, and starts it.
func (d *board) reboot() {
	s := d.sky
	s.t.Helper()
	s.ok(d.cmd.Process.Kill())
	_ = d.cmd.Wait() // it was killed
	s.ok(within(d.ns, func() error {
		for _, name := range []string{paths.BatIface, paths.OverlayIface} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				continue // not made yet
			}
			if err := netlink.LinkDel(link); err != nil {
				return err
			}
		}
		return nil
	}))
	s.ok(os.RemoveAll(filepath.Join(d.root, "run"))) // RAM
	d.boot++
	d.start()
}

// within calls f on a thread in that namespace. The thread ends with it.
func within(ns *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(netns.NsHandle(ns.Fd())); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// plug makes a radio and gives it to the board; prepare sees it before.
func (d *board) plug(prepare func(nl80211.Wiphy)) (id int) {
	s := d.sky
	s.t.Helper()
	s.made++
	name := fmt.Sprintf("radio%d", s.made)
	id, err := s.hwsim.NewRadio(hwsim.Radio{Name: name, MAC: net.HardwareAddr{2, 0, 0, 0, 0xaa, byte(s.made)}, NoVIF: true})
	s.ok(err)
	s.t.Cleanup(func() { _ = d.unplug(id) }) // the test may have removed it
	all, err := s.conn.Wiphys()
	s.ok(err)
	i := slices.IndexFunc(all, func(w nl80211.Wiphy) bool { return w.Name == name })
	if i < 0 {
		s.t.Fatalf("%s is not there after it was made", name)
	}
	if prepare != nil {
		prepare(all[i])
	}
	s.ok(s.conn.MoveWiphy(all[i].Index, d.ns))
	return id
}

// unplug removes a radio of the board: a driver's radios go from where they are.
func (d *board) unplug(id int) error {
	inside, err := hwsim.Dial(int(d.ns.Fd()))
	if err != nil {
		return err
	}
	return errors.Join(inside.DeleteRadio(id), inside.Close())
}

func (d *board) status() model.MeshStatus {
	s, err := d.mesh.Status(d.sky.t.Context())
	if err != nil {
		return model.MeshStatus{}
	}
	return s
}

// linked waits until the board has a link with another over the air, and routing
// knows of it.
func (d *board) linked() model.Radio {
	d.sky.t.Helper()
	var r model.Radio
	d.sky.until("the "+string(d.role)+" is linked over the air", func() error {
		s := d.status()
		for _, r = range s.Radios {
			if r.Linked() == 0 {
				continue
			}
			for _, n := range s.Neighbours {
				if n.Iface == r.Iface && n.MAC == r.Peers[0].MAC && s.Originators == 1 {
					return nil
				}
			}
		}
		return fmt.Errorf("radios %+v, neighbours %+v", s.Radios, s.Neighbours)
	})
	return r
}

// carried is what health says of what carries the mesh: of the first link of the
// chain that does not work, or of peers.
func (d *board) carried() health.Check {
	r, err := d.mesh.Health(d.sky.t.Context())
	for _, name := range []string{"driver", "interface", "mesh", "peers"} {
		if i := slices.IndexFunc(r.Checks, func(c health.Check) bool { return c.Name == name }); err == nil && i >= 0 && (r.Checks[i].State != health.OK || name == "peers") {
			return r.Checks[i]
		}
	}
	return health.Check{Detail: fmt.Sprint(err)}
}

func (d *board) told(kind string) []model.Event {
	list, err := d.mesh.Events(d.sky.t.Context(), 0, 0)
	d.sky.ok(err)
	return slices.DeleteFunc(list, func(e model.Event) bool { return e.Kind != kind })
}

// bundles makes a network.
func bundles(t testing.TB, routing string) (gateway, node bundle.Bundle) {
	t.Helper()
	key := identity.New()
	node = bundle.Bundle{
		Version: bundle.Version, Network: "valley", Role: model.RoleNode, Country: "DE", Name: "mast",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64()},
		Mesh:    bundle.Mesh{SSID: "VALLEY-1", PSK: "a password of the lab", Routing: routing, Channel: 6, BeaconInterval: 100},
	}
	gateway = node
	node.Join.Token = identity.NewJoinToken(1, time.Now().Add(24*time.Hour)).Text(key)
	gateway.Role, gateway.Name = model.RoleGateway, "gw"
	gateway.Gateway.Seed, gateway.Gateway.ClaimCode = base64.StdEncoding.EncodeToString(key.Seed()), "7K3M-Q0ZT-4WXPB"
	return gateway, node
}

// TestTheMeshOverTheAir has a gateway and a node find each other by radio alone.
func TestTheMeshOverTheAir(t *testing.T) {
	for _, routing := range []string{"BATMAN_IV", "BATMAN_V"} {
		t.Run(routing, func(t *testing.T) {
			s := newSky(t)
			g, n := bundles(t, routing)
			gw, node := s.board(model.RoleGateway, g), s.board(model.RoleNode, n)
			s.until("a node without radios says so", func() error {
				if c := node.carried(); c.State != health.Failed || c.Detail != "no port may carry the mesh, and there is no radio" {
					return fmt.Errorf("%s: %s", c.State, c.Detail)
				}
				return nil
			})
			gw.plug(nil)
			id := node.plug(nil)
			a, b := gw.linked(), node.linked()
			if a.Peers[0].MAC != b.MAC || b.Peers[0].MAC != a.MAC {
				t.Errorf("the gateway has %s and peer %s, the node %s and peer %s", a.MAC, a.Peers[0].MAC, b.MAC, b.Peers[0].MAC)
			}
			if !b.Member || b.Channel != 6 || b.FreqMHz != 2437 || b.WidthMHz != 20 || b.Country != "DE" || b.TxPowerDBm != 20 {
				t.Errorf("the node's radio: %+v", b)
			}
			if p := b.Peers[0]; p.SAE != "Accepted" || p.Peering != "ESTAB" || p.Since == nil || p.SignalDBm == 0 || p.TxBytes == 0 || p.RxBytes == 0 {
				t.Errorf("the node's peer: %+v", p)
			}
			s.until("the node knows which peer is the gateway", func() error {
				st := node.status()
				if id := gw.status().Node; st.Radios[0].Peers[0].Node != id || st.Neighbours[0].Node != id {
					return fmt.Errorf("got %+v, %+v", st.Radios, st.Neighbours)
				}
				return nil
			})
			// The gateway's signed answer to a nonce has come through bat0.
			s.until("the node hears the gateway", func() error {
				if node.status().GatewayHeard == nil {
					return errors.New("not heard")
				}
				return nil
			})
			s.until("health says that the mesh is carried", func() error {
				if c := node.carried(); c.State != health.OK {
					return fmt.Errorf("%s: %s", c.State, c.Detail)
				}
				return nil
			})
			if len(node.told(radio.EventJoined)) != 1 || len(node.told(radio.EventPeer)) != 1 || len(node.told(wireless.EventCountry)) != 0 {
				t.Errorf("events: %d of joining, %d of the peer, %d of the country", len(node.told(radio.EventJoined)), len(node.told(radio.EventPeer)), len(node.told(wireless.EventCountry)))
			}
			if routing == "BATMAN_V" {
				return // the rest is alike
			}
			asked(t, gw, node, a)

			s.ok(node.unplug(id))
			s.until("the radio is gone", func() error {
				if r := node.status().Radios; len(r) != 0 {
					return fmt.Errorf("got %+v", r)
				}
				return nil
			})
			node.plug(nil)
			if again := node.linked(); again.MAC == b.MAC {
				t.Errorf("another radio has the same address %s", b.MAC)
			}
		})
	}
}

// asked asks the node's radio for all that can be asked.
func asked(t *testing.T, gw, node *board, far model.Radio) {
	t.Helper()
	s := node.sky
	scan, err := node.mesh.Scan(t.Context(), model.ScanRequest{})
	s.ok(err)
	i := slices.IndexFunc(scan.Networks, func(n model.RadioNetwork) bool { return n.BSSID == far.MAC })
	if i < 0 {
		t.Fatalf("a scan does not hear the gateway: %+v", scan)
	}
	if n := scan.Networks[i]; n.Kind != "mesh" || n.Name != "VALLEY-1" || !n.Own || !n.Secured || n.Channel != 6 || n.SignalDBm == 0 {
		t.Errorf("the scan's gateway: %+v", n)
	}
	var file bytes.Buffer
	s.ok(node.mesh.Capture(t.Context(), model.CaptureRequest{Seconds: 3}, &file))
	beacons := 0
	for rest := file.Bytes()[pcap.HeaderSize:]; len(rest) > pcap.FrameHeaderSize; {
		n := int(binary.LittleEndian.Uint32(rest[8:]))
		frame := rest[pcap.FrameHeaderSize : pcap.FrameHeaderSize+n]
		rest = rest[pcap.FrameHeaderSize+n:]
		if head := int(binary.LittleEndian.Uint16(frame[2:])); len(frame) > head+16 && frame[head] == 0x80 && net.HardwareAddr(frame[head+10:head+16]).String() == far.MAC {
			beacons++
		}
	}
	if beacons == 0 {
		t.Errorf("a capture of %d octets has no beacon of the gateway", file.Len())
	}
	if _, err := net.InterfaceByName("halo-capture"); err == nil {
		t.Error("the capture's interface is still there")
	}
	channels, err := node.mesh.Channels(t.Context())
	s.ok(err)
	used := 0
	for _, c := range channels[0].Channels {
		if c.InUse && c.Channel == 6 && c.Usable && c.MaxPowerDBm == 20 {
			used++
		}
	}
	if used != 1 || channels[0].Country != "DE" {
		t.Errorf("channels: %+v", channels)
	}
	legal, err := node.mesh.Legal(t.Context())
	s.ok(err)
	if len(legal) != 2 || !legal[0].Allowed || legal[0].MaxEIRPDBm != 20 || legal[0].Country != "DE" {
		t.Errorf("legality: %+v", legal)
	}
	if s := gw.status(); len(s.Radios) != 1 || s.Radios[0].Linked() != 1 {
		t.Errorf("after all that the gateway has %+v", s.Radios)
	}
}

// TestARadioThatIsInUse is left alone, until it is free.
func TestARadioThatIsInUse(t *testing.T) {
	s := newSky(t)
	_, n := bundles(t, "BATMAN_IV")
	node := s.board(model.RoleNode, n)
	var hotspot nl80211.Interface
	node.plug(func(w nl80211.Wiphy) {
		var err error
		hotspot, err = s.conn.NewInterface(w.Index, "hotspot0", nl80211.AP, nil)
		s.ok(err)
	})
	s.until("the radio is left alone", func() error {
		if r := node.status().Radios; len(r) != 1 || r[0].Member || r[0].Iface != "" || !strings.Contains(r[0].Detail, "hotspot0 is an access point") {
			return fmt.Errorf("got %+v", r)
		}
		return nil
	})
	if _, err := node.mesh.Scan(t.Context(), model.ScanRequest{}); !errors.Is(err, local.ErrNone) {
		t.Errorf("a scan by it: %v", err)
	}
	inside, err := nl80211.Dial(nl80211.Config{NetNS: int(node.ns.Fd())})
	s.ok(err)
	defer inside.Close()
	s.ok(inside.DeleteInterface(hotspot.Index))
	s.until("the radio is taken", func() error {
		if r := node.status().Radios; len(r) != 1 || !r[0].Member {
			return fmt.Errorf("got %+v", r)
		}
		return nil
	})
}
