//go:build lab

package benchmesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air"
	"halo.internal/lab/air/airtime"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
)

// patience is far beyond what any of this takes, also a dozen halo-meshes on a busy
// host.
const patience = 15 * time.Minute

// world is the machine in which all is measured.
type world struct {
	t     testing.TB
	conn  *nl80211.Conn
	hwsim *hwsim.Conn
	air   *air.Air // nil: the driver delivers at once
	made  int      // radios
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.hwsim, err = hwsim.Dial(0)
	w.ok(err)
	t.Cleanup(func() { w.hwsim.Close() })
	w.conn, err = nl80211.Dial(nl80211.Config{})
	w.ok(err)
	t.Cleanup(func() { w.conn.Close() })
	w.ok(w.conn.ReloadRegulatory()) // of the images' firmware
	w.ok(w.conn.SetCountry("DE"))
	w.until("the rules of the country", func() error {
		r, err := w.conn.Regulatory()
		if err == nil && r.Country != "DE" {
			err = fmt.Errorf("those of %s hold", r.Country)
		}
		return err
	})
	return w
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// until polls what no event tells.
func (w *world) until(what string, ok func() error) {
	w.t.Helper()
	w.poll(50*time.Millisecond, what, ok)
}

// poll asks at such intervals: a dozen halo-meshes that are asked all the time have
// no time left for each other.
func (w *world) poll(every time.Duration, what string, ok func() error) {
	w.t.Helper()
	told := time.Now()
	for deadline := told.Add(patience); ; time.Sleep(every) {
		err := ok()
		if err == nil {
			return
		}
		if time.Since(told) > 30*time.Second { // long work shows progress
			told = time.Now()
			fmt.Printf("%s %s: not yet: %v\n", told.Format(time.TimeOnly), what, err)
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// breathe puts an air between all radios.
func (w *world) breathe(p air.Profile) {
	w.t.Helper()
	w.ok(nice(airNice))
	w.air = air.New(p, physics.Outdoors(), 1)
	medium, err := hwsim.OpenMedium(0)
	w.ok(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.air.Run(ctx, medium) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

// airNice is the niceness of the process that is the air: radios do not wait for the
// processors that a dozen devices share. Their drivers would seem to hang.
const airNice = -15

// nice gives all threads of the process, and those that they will make, that niceness.
func nice(n int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, id, n)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return fmt.Errorf("niceness %d of thread %s: %w", n, t.Name(), err)
		}
	}
	return nil
}

// space is a network namespace. It lasts until end, whoever lives in it.
type space struct {
	ns     netns.NsHandle
	radios []int
}

func (w *world) space() *space {
	w.t.Helper()
	s := &space{}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ns, err := netns.New()
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		s.ns = ns
		done <- err
	}()
	w.ok(<-done)
	return s
}

// within calls f on a thread in the namespace. The thread ends with it.
func (s *space) within(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// end removes the radios of the namespace, and it.
func (s *space) end() {
	if conn, err := hwsim.Dial(int(s.ns)); err == nil {
		for _, id := range s.radios {
			_ = conn.DeleteRadio(id) // it may have been removed
		}
		_ = conn.Close()
	}
	_ = s.ns.Close()
}

// simulated is a radio that is still in the machine's own namespace.
type simulated struct {
	name  string // in the air too
	mac   net.HardwareAddr
	id    int
	wiphy int
	iface string // of a mesh point on it; empty: none
}

// radio makes a radio, and with an interface's name one on it.
func (w *world) radio(iface string) simulated {
	w.t.Helper()
	w.made++
	r := simulated{name: fmt.Sprintf("radio%d", w.made), mac: net.HardwareAddr{2, 0, 0, 0, byte(w.made >> 8), byte(w.made)}, iface: iface}
	var err error
	r.id, err = w.hwsim.NewRadio(hwsim.Radio{Name: r.name, MAC: r.mac, NoVIF: true})
	w.ok(err)
	all, err := w.conn.Wiphys()
	w.ok(err)
	i := slices.IndexFunc(all, func(x nl80211.Wiphy) bool { return x.Name == r.name })
	if i < 0 {
		w.t.Fatalf("%s is not there after it was made", r.name)
	}
	r.wiphy = all[i].Index
	if iface != "" {
		_, err = w.conn.NewInterface(r.wiphy, iface, nl80211.MeshPoint, nil)
		w.ok(err)
	}
	return r
}

// place puts a radio into the air.
func (w *world) place(r simulated, at physics.Position) {
	w.t.Helper()
	w.ok(w.air.Place(air.Radio{Name: r.name, Address: r.mac, Position: at, PowerDBm: 16, FigureDB: 7}))
}

// plug gives a radio to the namespace.
func (w *world) plug(s *space, r simulated) {
	w.t.Helper()
	s.radios = append(s.radios, r.id)
	f := os.NewFile(uintptr(dup(w, int(s.ns))), "namespace")
	defer f.Close()
	w.ok(w.conn.MoveWiphy(r.wiphy, f))
}

func dup(w *world, fd int) int {
	w.t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	w.ok(err)
	return n
}

// tap takes down, in that name, what is handed to the interface of a namespace that has
// this name, also when it is made anew, until the test ends.
func (w *world) tap(s *space, iface, name string, l *airtime.Ledger) {
	w.t.Helper()
	var fd int
	w.ok(s.within(func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}))
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		meant := map[int]bool{} // by index, which no other interface gets
		b := make([]byte, 4096)
		for ctx.Err() == nil {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				continue // nothing has come, or an interface went down
			}
			a, ok := from.(*unix.SockaddrLinklayer)
			if !ok || a.Pkttype != unix.PACKET_OUTGOING {
				continue
			}
			if _, known := meant[a.Ifindex]; !known {
				found, err := interfaceName(fd, a.Ifindex)
				meant[a.Ifindex] = err == nil && found == iface
			}
			if meant[a.Ifindex] {
				l.Given(name, b[:n])
			}
		}
	}()
	w.t.Cleanup(func() { cancel(); <-ended; _ = unix.Close(fd) })
}

// interfaceName asks in the namespace of a socket.
func interfaceName(fd, index int) (string, error) {
	r, err := unix.NewIfreq("-") // any: the kernel goes by the index
	if err != nil {
		return "", err
	}
	r.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, r); err != nil {
		return "", err
	}
	return r.Name(), nil
}

// isUp returns nil when the interface of that name is up.
func isUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().RawFlags&unix.IFF_UP == 0 {
		err = fmt.Errorf("%s is down", name)
	}
	return err
}

// do runs a program in the namespace to its end.
func (w *world) do(s *space, name string, args ...string) {
	w.t.Helper()
	w.ok(s.within(func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}))
}

// median of values that are not empty; they are sorted by it.
func median(values []float64) float64 {
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}
