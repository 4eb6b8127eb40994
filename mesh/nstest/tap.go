package nstest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NewTap makes a namespace with one Ethernet interface, up, whose cable ends in a
// connection as QEMU speaks it: each frame after its length in four octets, the
// highest first.
func NewTap(t testing.TB, name string) (*Host, net.Conn) {
	t.Helper()
	h := &Host{ns: netns.None()}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE, Queues: 1}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: see Away
		made <- func() (err error) {
			if h.ns, err = netns.New(); err != nil {
				return err
			}
			if err := netlink.LinkAdd(tap); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			return errors.Join(err, netlink.LinkSetUp(lo), netlink.LinkSetUp(tap))
		}()
	}()
	must(t, <-made)
	t.Cleanup(func() { _ = h.ns.Close() })
	card := tap.Fds[0]
	near, far := net.Pipe()
	go func() { // ends when the interface is closed
		buf := make([]byte, 4+65536)
		for {
			n, err := card.Read(buf[4:])
			if err != nil {
				return
			}
			binary.BigEndian.PutUint32(buf, uint32(n))
			if _, err := near.Write(buf[:4+n]); err != nil {
				return
			}
		}
	}()
	go func() { // ends when the other end hangs up
		defer card.Close()
		buf := make([]byte, 65536)
		for {
			var length [4]byte
			if _, err := io.ReadFull(near, length[:]); err != nil {
				return
			}
			n := binary.BigEndian.Uint32(length[:])
			if int(n) > len(buf) {
				return
			}
			if _, err := io.ReadFull(near, buf[:n]); err != nil {
				return
			}
			_, _ = card.Write(buf[:n]) // a cable loses what the other end does not take
		}
	}()
	t.Cleanup(func() { near.Close(); far.Close() })
	return h, far
}
