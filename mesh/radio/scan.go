package radio

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// ErrBusy is wrapped when a radio does already what only one can ask of it.
var ErrBusy = errors.New("the radio is busy")

// Scan has the radio of a mesh interface look over all its channels, and returns
// what it hears: answers to what it asks, or, by listening only, which takes three
// times as long, the beacons of who does not hear or answer it in time. The radio is
// away from the mesh for a moment at a time. When ctx ends first, the scan is given up:
// an interface that goes away in the middle of one wedges some firmware.
func Scan(ctx context.Context, iface string, listen bool) (_ []nl80211.BSS, err error) {
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
	var q nl80211.Scan
	if !listen {
		// A mesh answers only what has a mesh ID, its own or the wildcard (IEEE Std
		// 802.11-2020, 11.1.4.3.4).
		q = nl80211.Scan{SSIDs: [][]byte{{}}, IEs: dot11.AppendElement(nil, dot11.MeshID, nil)}
	}
	err = conn.StartScan(i.Index, q)
	if errors.Is(err, unix.EINVAL) && q.IEs != nil { // a driver that sends none but its own
		q.IEs = nil
		err = conn.StartScan(i.Index, q)
	}
	if errors.Is(err, unix.EBUSY) {
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
