package radio

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
)

// ErrBusy is wrapped when a radio does already what only one can ask of it.
var ErrBusy = errors.New("the radio is busy")

// Scan has the radio of a mesh interface look over all its channels, and returns
// what it hears. The radio is away from the mesh for a moment at a time. When ctx
// ends first, the scan is given up: an interface that goes away in the middle of
// one wedges some firmware.
func Scan(ctx context.Context, iface string) (_ []nl80211.BSS, err error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("scan: %s: %w", iface, err)
	}
	conn, err := nl80211.Dial(nl80211.Config{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	events, err := nl80211.Listen(nl80211.Config{}, nl80211.GroupScan)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	if err := conn.StartScan(i.Index, nl80211.Scan{SSIDs: [][]byte{{}}}); errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: another scan is under way on %s", ErrBusy, iface)
	} else if err != nil {
		return nil, err
	}
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("scan on %s: %w", iface, err), conn.AbortScan(i.Index))
		}
		switch e := e.(type) {
		case nl80211.ScanDone:
			switch {
			case e.Iface != i.Index:
			case e.Aborted:
				return nil, fmt.Errorf("scan on %s: it was given up by the driver", iface)
			default:
				return conn.ScanResults(i.Index)
			}
		case nl80211.Overflow: // its end may be among what was lost
			return conn.ScanResults(i.Index)
		}
	}
}
