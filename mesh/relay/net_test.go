package relay_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/bridge"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/relay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// The tests of this file run a relay in a process and a network namespace of its own
// for each device: this binary, started again. A hub stands for the overlay; bridges,
// IGMP and all of the relay are real.

const (
	envDevice = "HALO_TEST_DEVICE"
	patience  = 2 * time.Minute
	devices   = 3
)

var (
	sa       = netip.MustParseAddrPort("239.2.3.1:6969")
	unlisted = netip.MustParseAddrPort("239.9.9.9:6970")
)

func TestMain(m *testing.M) {
	if n := os.Getenv(envDevice); n != "" {
		if err := device(int(n[0] - '0')); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(nstest.Main(m))
}

func overlay(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, 1, byte(n)}) }
func client(n, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 43, byte(n), byte(host)})
}

// device is the process of a device. Lines that it reads are commands: "status" has
// the relay's as its answer, "forge" sends others what a client of device 1 has not
// said.
func device(n int) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	plugged := func(name string) (l netlink.Link) {
		for {
			var err error
			if l, err = netlink.LinkByName(name); err == nil {
				return l
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	set := func(l netlink.Link, a netip.Addr, bits int) error {
		return errors.Join(netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}}), netlink.LinkSetUp(l))
	}
	br, err := bridge.Ensure(bridge.Config{Name: paths.ClientBridge, MAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(n)}, Snooping: true})
	if err != nil {
		return err
	}
	err = set(br, client(n, 1), 24)
	for _, name := range []string{"eth0", "eth1"} {
		l := plugged(name)
		err = errors.Join(err, netlink.LinkSetUp(l), bridge.Ports(paths.ClientBridge).Enslave(name))
	}
	if err := errors.Join(err, set(plugged(paths.OverlayIface), overlay(n), 16)); err != nil {
		return err
	}
	r := relay.New(relay.Config{Groups: model.MulticastGroups(), Kbit: 10000, Log: log})
	w := relay.Wanted{Overlay: overlay(n), Clients: netip.PrefixFrom(client(n, 0), 24)}
	for i := 1; i <= devices; i++ {
		if i != n {
			w.Members = append(w.Members, relay.Member{Node: fmt.Sprintf("n-%d", i), Overlay: overlay(i), Clients: netip.PrefixFrom(client(i, 0), 24)})
		}
	}
	r.Set(w)
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() {
		if err := r.Run(ctx); err != nil {
			log.Error("relay ended", "err", err)
		}
	})
	defer owned.Wait()
	defer cancel()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "status":
			b, err := json.Marshal(r.Status())
			if err != nil {
				return err
			}
			fmt.Printf("%s\n", b)
		case "forge":
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(overlay(n), 0)))
			if err != nil {
				return err
			}
			msg := slices.Concat([]byte{1, 9}, client(1, 10).AsSlice(), []byte{1, 1}, sa.Addr().AsSlice(), []byte{6969 >> 8, 6969 & 0xff}, []byte("forged"))
			for i := 1; i <= devices; i++ {
				if _, err := c.WriteToUDPAddrPort(msg, netip.AddrPortFrom(overlay(i), paths.RelayPort)); err != nil {
					return err
				}
			}
			fmt.Println("{}")
			c.Close()
		}
	}
	return nil
}

// board is a device as the test sees it.
type board struct {
	t     *testing.T
	in    interface{ Write([]byte) (int, error) }
	out   *bufio.Reader
	phone [2]*nstest.Host
}

func (b *board) say(command string) (s model.RelayStatus) {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.in, command); err != nil {
		b.t.Fatal(err)
	}
	line, err := b.out.ReadBytes('\n')
	if err != nil {
		b.t.Fatal(err)
	}
	if err := json.Unmarshal(line, &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *board) group() model.RelayGroup {
	b.t.Helper()
	s := b.say("status")
	return s.Groups[slices.IndexFunc(s.Groups, func(g model.RelayGroup) bool { return g.Group == sa })]
}

// network makes devices with two phones each, which are 10 and 11 of their networks.
func network(t *testing.T) []*board {
	t.Helper()
	var boards []*board
	var far []netlink.Link
	for n := 1; n <= devices; n++ {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envDevice, n))
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} // it ends with its input
		cmd.Stderr = &prefixed{t: t, prefix: fmt.Sprintf("device %d: ", n)}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close() // it ends then
			_ = cmd.Wait()
		})
		b := &board{t: t, in: in, out: bufio.NewReader(out)}
		give := func(name, as string) netlink.Link {
			near, far := nstest.Cable(t, name, name+"f")
			if err := errors.Join(netlink.LinkSetDown(near), netlink.LinkSetName(near, as), netlink.LinkSetNsPid(near, cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			return far
		}
		far = append(far, give(fmt.Sprintf("w%d", n), paths.OverlayIface))
		for i := range b.phone {
			l := give(fmt.Sprintf("c%d%d", n, i), fmt.Sprintf("eth%d", i))
			b.phone[i] = nstest.NewHost(t, l)
			name := l.Attrs().Name
			b.phone[i].Do(t, func() error {
				l, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				return netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: client(n, 10+i).AsSlice(), Mask: net.CIDRMask(24, 32)}})
			})
		}
		boards = append(boards, b)
	}
	nstest.Hub(t, "overlay", far...)
	return boards
}

type prefixed struct {
	t      *testing.T
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		fmt.Fprint(os.Stderr, p.prefix, line)
	}
	return len(b), nil
}

// ethernet is a phone's only interface.
func ethernet() (*net.Interface, error) {
	list, err := net.Interfaces()
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 {
			return &i, err
		}
	}
	return nil, errors.Join(err, errors.New("no interface"))
}

// join has a phone listen to a group.
func join(t *testing.T, h *nstest.Host, group netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	h.Do(t, func() error {
		ifi, err := ethernet()
		if err == nil {
			c, err = net.ListenMulticastUDP("udp4", ifi, net.UDPAddrFromAddrPort(group))
		}
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// speaker has a phone ready to speak to groups.
func speaker(t *testing.T, h *nstest.Host) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	h.Do(t, func() error {
		ifi, err := ethernet()
		if err != nil {
			return err
		}
		if c, err = net.ListenUDP("udp4", &net.UDPAddr{}); err != nil {
			return err
		}
		return ipv4.NewPacketConn(c).SetMulticastInterface(ifi)
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func speak(t *testing.T, c *net.UDPConn, group netip.AddrPort, payload []byte) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(payload, group); err != nil {
		t.Fatal(err)
	}
}

// heard returns the next datagram.
func heard(t *testing.T, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 1<<16)
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// tapped counts what comes in at a phone for a group, whether it listens or not.
func tapped(t *testing.T, h *nstest.Host, group netip.Addr) *atomic.Int64 {
	t.Helper()
	var c *packet.Conn
	h.Do(t, func() error {
		ifi, err := ethernet()
		if err == nil {
			c, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_IP, nil)
		}
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	var n atomic.Int64
	go func() {
		buf := make([]byte, 2048)
		for {
			got, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if got >= 34 && bytes.Equal(buf[30:34], group.AsSlice()) && buf[23] == unix.IPPROTO_UDP {
				n.Add(1)
			}
		}
	}()
	return &n
}

func eventually(t *testing.T, boards []*board, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			for i, b := range boards {
				t.Logf("device %d: %+v", i+1, b.say("status"))
			}
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func TestPhonesOfThreeNodes(t *testing.T) {
	b := network(t)
	ann, bob := join(t, b[0].phone[0], sa), join(t, b[1].phone[0], sa)
	other := join(t, b[1].phone[0], unlisted)
	idle, far := tapped(t, b[1].phone[1], sa.Addr()), tapped(t, b[2].phone[0], sa.Addr())
	eventually(t, b, "both devices know who listens", func() bool {
		return b[0].group().Joined && b[1].group().Joined && slices.Equal(b[0].group().Members, []string{"n-2"}) &&
			slices.Equal(b[1].group().Members, []string{"n-1"}) && len(b[2].group().Members) == 2 // which hears of both, and when is its own affair
	})
	if g := b[2].group(); g.Joined {
		t.Errorf("a device without listeners: got %+v", g)
	}
	time.Sleep(3 * time.Second) // before it has heard answers for so long, a bridge hands multicast to all
	idle.Store(0)
	far.Store(0)
	voice := speaker(t, b[0].phone[0])
	own := netip.AddrPortFrom(client(1, 10), uint16(voice.LocalAddr().(*net.UDPAddr).Port))
	for _, text := range []string{"<event uid='ann'/>", strings.Repeat("long ", 1200)} {
		speak(t, voice, sa, []byte(text))
		if got, from := heard(t, bob); got != text || from != own {
			t.Errorf("bob heard %d octets from %s, want %d from %s", len(got), from, len(text), own)
		}
		if got, _ := heard(t, ann); got != text { // her own, once, by her own host
			t.Errorf("ann heard %.40q", got)
		}
	}
	reply := speaker(t, b[1].phone[0])
	speak(t, reply, sa, []byte("seen"))
	if got, from := heard(t, ann); got != "seen" || from.Addr() != client(2, 10) {
		t.Errorf("ann heard %.40q from %s", got, from)
	}
	if got, _ := heard(t, bob); got != "seen" {
		t.Errorf("bob heard %.40q", got)
	}

	t.Run("a device without listeners speaks", func(t *testing.T) {
		speak(t, speaker(t, b[2].phone[1]), sa, []byte("here"))
		for name, c := range map[string]*net.UDPConn{"ann": ann, "bob": bob} {
			if got, from := heard(t, c); got != "here" || from.Addr() != client(3, 11) {
				t.Errorf("%s heard %.40q from %s", name, got, from)
			}
		}
		if n := far.Load(); n > 0 {
			t.Errorf("%d datagrams came to a device where nobody listens", n)
		}
	})
	t.Run("a group that is not listed", func(t *testing.T) {
		speak(t, voice, unlisted, []byte("unlisted"))
		speak(t, voice, sa, []byte("behind"))
		if got, _ := heard(t, bob); got != "behind" {
			t.Errorf("bob heard %.40q", got)
		}
		if err := other.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := other.ReadFromUDPAddrPort(make([]byte, 64)); err == nil {
			t.Errorf("%d octets came through", n)
		}
		heard(t, ann)
	})
	t.Run("a member that speaks for others' clients", func(t *testing.T) {
		b[2].say("forge")
		eventually(t, b, "the forgery is dropped", func() bool { return b[1].say("status").Dropped["source that is no client of the member"] == 1 })
		speak(t, voice, sa, []byte("true"))
		if got, _ := heard(t, bob); got != "true" {
			t.Errorf("bob heard %.40q", got)
		}
		heard(t, ann)
	})
	if n := idle.Load(); n != 0 {
		t.Errorf("%d datagrams came to a phone that has not joined", n)
	}
	if s := b[0].say("status"); s.Counts.Emitted != 2 { // no datagram came round
		t.Errorf("device 1: %+v", s)
	}
	t.Run("the last one leaves", func(t *testing.T) {
		bob.Close()
		eventually(t, b, "device 1 knows", func() bool { return b[0].group().Members == nil })
		before := b[0].say("status").Counts
		speak(t, voice, sa, []byte("nobody"))
		eventually(t, b, "it is taken up", func() bool { return b[0].say("status").Counts.Heard > before.Heard })
		if after := b[0].say("status").Counts; after.Sent != before.Sent {
			t.Errorf("%d copies were sent to nobody", after.Sent-before.Sent)
		}
	})
}
