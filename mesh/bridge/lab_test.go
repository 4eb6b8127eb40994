//go:build lab

package bridge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/mesh"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/bridge"
	"halo.internal/mesh/dhcp"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/ntp"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// The tests run in the test machine, with the images' batman-adv. Devices and hosts are
// processes of this program, each in a namespace of its own, which read commands and
// answer each with a line.

const (
	envDevice = "HALO_TEST_DEVICE" // number; 0 is the gateway
	envHost   = "HALO_TEST_HOST"

	patience = 10 * time.Minute // loop avoidance waits for half a minute at a start
	devices  = 3
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(envDevice) != "":
		n, _ := strconv.Atoi(os.Getenv(envDevice)) // the test has written it
		err = device(n)
	case os.Getenv(envHost) != "":
		err = host(os.Getenv(envHost))
	default:
		testvm.Main(m, testvm.Options{Modules: []string{"batman_adv", "bridge", "veth"}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func keyOf(n int) identity.Key {
	seed := make([]byte, 32)
	seed[0] = byte(n + 1)
	k, err := identity.FromSeed(seed)
	if err != nil {
		panic(err)
	}
	return k
}

func addressOf(n int) netip.Addr {
	return identity.Underlay(keyOf(0).Public(), keyOf(n).Public())
}

func plugged(name string) netlink.Link {
	for {
		if l, err := netlink.LinkByName(name); err == nil {
			return l
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// echo answers whoever sends to that port.
func echo(network, address string) error {
	c, err := net.ListenPacket(network, address)
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return nil
}

// reach tells whether an echo comes back within a second.
func reach(network, address string) string {
	c, err := net.Dial(network, address)
	if err != nil {
		return "no: " + err.Error()
	}
	defer c.Close()
	_, errW := c.Write([]byte("echo"))
	errD := c.SetReadDeadline(time.Now().Add(time.Second))
	_, errR := c.Read(make([]byte, 16))
	if err := errors.Join(errW, errD, errR); err != nil {
		return "no: " + err.Error()
	}
	return "yes"
}

// device is a member whose port guest0 is bridged into the mesh that mesh0 leads to.
// It does what halo-mesh does with the ports and the underlay.
func device(n int) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	port, guest := plugged("mesh0"), plugged("guest0")
	if err := errors.Join(netlink.LinkSetUp(port), netlink.LinkSetUp(guest), netlink.LinkSetUp(plugged("lo"))); err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "device")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for _, d := range []string{paths.State, paths.Run, "/tmp"} {
		if err := os.MkdirAll(root+d, 0o755); err != nil {
			return err
		}
	}
	c := batman.Config{Name: paths.BatIface, Algorithm: batman.IV, MAC: batman.MAC(keyOf(n).Public(), 0), Bridged: true, Gateway: batman.GatewayClient}
	role := model.RoleNode
	if n == 0 {
		c.Gateway, role = batman.GatewayServer, model.RoleGateway
	}
	l := lan.New(lan.Config{
		Role: role, Network: keyOf(0).Public(), Node: keyOf(n).Public(), Root: root, Underlay: paths.MeshBridge, Guests: []string{"guest0"},
		Clock:  func() ntp.Reading { return ntp.Reading{Now: time.Now(), Quality: model.ClockRTC, Set: time.Now()} },
		Notify: func(e model.Event) { log.Info("event", "kind", e.Kind, "message", e.Message) }, Log: log,
	})
	l.Set(lan.Wanted{Name: fmt.Sprintf("node%d", n)})
	l.Begin()
	if err := l.Err(); err != nil {
		return err
	}
	bat, err := batman.Open(c)
	if err != nil {
		return err
	}
	// It has carried addresses as it does where nothing is bridged.
	err = errors.Join(
		mesh.AddressUnderlay(paths.BatIface, addressOf(n)),
		bat.Enslave("mesh0"),
		mesh.BridgeUnderlay(c.MAC, 1),
		mesh.BridgeUnderlay(c.MAC, 1), // as at the next start
		mesh.AddressUnderlay(paths.MeshBridge, addressOf(n)),
		bridge.Ports(paths.MeshBridge).Enslave("guest0"),
	)
	b0, br := plugged(paths.BatIface), plugged(paths.MeshBridge)
	if n == 0 {
		err = errors.Join(err, netlink.AddrAdd(br, &netlink.Addr{IPNet: &net.IPNet{IP: paths.UnderlayGateway.AsSlice(), Mask: net.CIDRMask(16, 32)}}))
	}
	if left, errL := netlink.AddrList(b0, netlink.FAMILY_ALL); errL != nil || len(left) > 0 || br.Attrs().HardwareAddr.String() != c.MAC.String() {
		err = errors.Join(err, errL, fmt.Errorf("bat0 has %v, br-mesh is %s, want %s", left, br.Attrs().HardwareAddr, c.MAC))
	}
	if err := errors.Join(err, echo("udp6", fmt.Sprintf("[%s]:%d", addressOf(n), paths.WireGuardPort))); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() {
		if err := l.Run(ctx); err != nil {
			log.Error("LAN ended", "err", err)
		}
	})
	defer owned.Wait()
	defer cancel()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, arg, _ := strings.Cut(in.Text(), " ")
		switch command {
		case "reach":
			to, _ := strconv.Atoi(arg)
			fmt.Println(reach("udp6", fmt.Sprintf("[%s]:%d", addressOf(to), paths.WireGuardPort)))
		case "avoids":
			info, err := bat.Info()
			fmt.Println(info.BLA, err)
		case "drops":
			s, err := l.Firewall()
			sum := uint64(0)
			for _, z := range s.Zones {
				for _, d := range z.Drops {
					if d.Name == "address-theft/mesh" || d.Name == "dhcp-server/mesh" {
						sum += d.Packets
					}
				}
			}
			fmt.Println(sum, err)
		}
	}
	return nil
}

// host is a computer with one cable, which has its address from whoever serves it.
func host(iface string) error {
	l := plugged(iface)
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	client, err := dhcp.New(dhcp.Config{Own: paths.UnderlayNet, Notify: func(model.Event) {}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	go func() {
		for {
			_ = client.Run(context.Background(), iface) // it tries for ever
			time.Sleep(100 * time.Millisecond)
		}
	}()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		err2 := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
		return errors.Join(err, err2)
	}}
	shouts, err := lc.ListenPacket(context.Background(), "udp4", ":9")
	if err := errors.Join(err, echo("udp4", ":7")); err != nil {
		return err
	}
	var mu sync.Mutex
	heard := map[string]int{}
	go func() {
		b := make([]byte, 2048)
		for {
			n, _, err := shouts.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			heard[string(b[:n])]++
			mu.Unlock()
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, arg, _ := strings.Cut(in.Text(), " ")
		switch command {
		case "address":
			list, err := netlink.AddrList(l, netlink.FAMILY_V4)
			if err != nil || len(list) == 0 {
				fmt.Println("none", err)
				continue
			}
			fmt.Println(list[0].IP)
		case "reach":
			fmt.Println(reach("udp4", arg+":7"))
		case "shout":
			_, err := shouts.WriteTo([]byte(arg), &net.UDPAddr{IP: net.IPv4(10, 41, 255, 255), Port: 9})
			fmt.Println(err)
		case "heard":
			mu.Lock()
			fmt.Println(heard[arg])
			mu.Unlock()
		}
	}
	return nil
}

// process is a device or a host, as the test sees it.
type process struct {
	t    *testing.T
	name string
	pid  int
	in   interface{ Write([]byte) (int, error) }
	out  *bufio.Reader
}

func start(t *testing.T, name, env string) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends then
		_ = cmd.Wait()
	})
	return &process{t: t, name: name, pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
}

func (p *process) say(command string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%s, %s: %v", p.name, command, err)
	}
	return strings.TrimSpace(line)
}

// plug lays a cable and returns its end here.
func (p *process) plug(near, as string) netlink.Link {
	p.t.Helper()
	l, far := nstest.Cable(p.t, near, near+"f")
	if err := errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, as), netlink.LinkSetNsPid(l, p.pid)); err != nil {
		p.t.Fatal(err)
	}
	return far
}

func eventually(t *testing.T, what string, f func() string) {
	t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		said := f()
		if said == "" {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s: not within %s: %s", what, patience, said)
		}
	}
}

// TestGuests has a gateway with a guest, and two nodes whose bridged ports are on one
// switch with another.
func TestGuests(t *testing.T) {
	var members []*process
	var mesh0, guest0 []netlink.Link
	for n := range devices {
		p := start(t, fmt.Sprintf("device %d", n), fmt.Sprintf("%s=%d", envDevice, n))
		mesh0 = append(mesh0, p.plug(fmt.Sprintf("m%d", n), "mesh0"))
		guest0 = append(guest0, p.plug(fmt.Sprintf("g%d", n), "guest0"))
		members = append(members, p)
	}
	near, far := start(t, "the gateway's guest", envHost+"=near0"), start(t, "the nodes' guest", envHost+"=far0")
	nstest.Hub(t, "air", mesh0...)
	nstest.Hub(t, "desk", guest0[0], near.plug("h0", "near0"))
	cable := far.plug("h1", "far0")
	nstest.Hub(t, "field", guest0[1], guest0[2], cable)

	for _, p := range members {
		if got := p.say("avoids"); got != "true <nil>" {
			t.Errorf("%s: loop avoidance: %s", p.name, got)
		}
	}
	address := func(p *process) string {
		var got string
		eventually(t, p.name+" has an address of the mesh", func() string {
			got = p.say("address")
			if a, err := netip.ParseAddr(got); err != nil || !paths.UnderlayNet.Contains(a) {
				return got
			}
			return ""
		})
		return got
	}
	nearAt, farAt := address(near), address(far)
	reaches := func(from *process, to string) {
		t.Helper()
		eventually(t, from.name+" reaches "+to, func() string { return strings.TrimPrefix(from.say("reach "+to), "yes") })
	}
	reaches(near, farAt)
	reaches(far, nearAt)
	speak := func() {
		t.Helper()
		for i, from := range members {
			for to := range devices {
				if to != i {
					reaches(from, strconv.Itoa(to))
				}
			}
		}
	}
	speak()

	// Whatever is said to all is heard once: by two ways, it would be heard twice, or
	// without an end.
	try := 0
	eventually(t, "ten shouts in a row, each heard once", func() string {
		try++
		for i := range 10 {
			for _, w := range []struct{ from, to *process }{{near, far}, {far, near}} {
				word := fmt.Sprintf("%s %d.%d", w.from.name, try, i)
				if got := w.from.say("shout " + word); got != "<nil>" {
					return word + ": " + got
				}
			}
		}
		time.Sleep(2 * time.Second) // for what is late
		for i := range 10 {
			for _, w := range []struct{ from, to *process }{{near, far}, {far, near}} {
				word := fmt.Sprintf("%s %d.%d", w.from.name, try, i)
				if got := w.to.say("heard " + word); got != "1" {
					return fmt.Sprintf("%s: heard %s times", word, got)
				}
			}
		}
		return ""
	})
	packets := func() uint64 {
		l, err := netlink.LinkByIndex(cable.Attrs().Index)
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Statistics.TxPackets
	}
	before := packets()
	time.Sleep(5 * time.Second) // of quiet
	if n := packets() - before; n > 500 {
		t.Errorf("%d frames came to a guest in five quiet seconds: something goes round", n)
	}
	t.Logf("%d frames came to a guest in five quiet seconds; dropped on the nodes' ports: %s, %s", packets()-before, members[1].say("drops"), members[2].say("drops"))

	speak()
}
