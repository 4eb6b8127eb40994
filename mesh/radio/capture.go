package radio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/pcap"
)

// captureIface is the name of the interface that a capture is made from.
const captureIface = "halo-capture"

// maxFrame is more than any frame of 802.11n and 802.11ac with its radiotap
// header has.
const maxFrame = 16 << 10

// Capture writes a pcap of what a radio hears and sends on the channel where it
// is, behind radiotap headers, until ctx ends, the time is over, or one frame
// more would make the file longer than most octets. It returns how many frames
// there are in it. One capture can be made at a time.
func Capture(ctx context.Context, wiphy int, w io.Writer, length time.Duration, most int) (frames int, err error) {
	conn, err := nl80211.Dial(nl80211.Config{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	index, err := makeMonitor(conn, wiphy)
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := conn.DeleteInterface(index); !errors.Is(e, unix.ENODEV) { // the radio was unplugged
			err = errors.Join(err, e)
		}
	}()
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	from, err := packet.Listen(i, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	if err := from.SetReadDeadline(time.Now().Add(length)); err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = from.SetReadDeadline(time.Now()) })() // fails when it is closed, which is as good
	return record(from, w, most)
}

// makeMonitor makes the monitor interface, in place of one that a process that
// died has left.
func makeMonitor(conn *nl80211.Conn, wiphy int) (index int, err error) {
	all, err := conn.Interfaces()
	if err != nil {
		return 0, err
	}
	for _, i := range all {
		if i.Name != captureIface {
			continue
		}
		if err := conn.DeleteInterface(i.Index); err != nil {
			return 0, err
		}
	}
	i, err := conn.NewInterface(wiphy, captureIface, nl80211.Monitor, nil)
	if err != nil {
		return 0, err
	}
	link, err := netlink.LinkByIndex(i.Index)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("capture: bring up %s: %w", captureIface, err), conn.DeleteInterface(i.Index))
	}
	return i.Index, nil
}

// record copies frames until the reader's deadline.
func record(from net.PacketConn, w io.Writer, most int) (frames int, err error) {
	file, err := pcap.New(w, pcap.Radiotap)
	if err != nil {
		return 0, fmt.Errorf("capture: %w", err)
	}
	frame := make([]byte, maxFrame)
	for size := pcap.HeaderSize; ; frames++ {
		n, _, err := from.ReadFrom(frame)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return frames, nil
		case err != nil:
			return frames, fmt.Errorf("capture: %w", err)
		}
		if size += pcap.FrameHeaderSize + n; size > most {
			return frames, nil
		}
		if err := file.Write(time.Now(), frame[:n]); err != nil {
			return frames, fmt.Errorf("capture: %w", err)
		}
	}
}
