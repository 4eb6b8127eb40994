// Package macsec has the kernel encrypt and authenticate what a port sends and
// takes in, frame by frame (IEEE 802.1AE): it makes the MACsec interface on the
// port by rtnetlink, and brings its channels and keys, by generic netlink, to a
// state that package sak agreed on with the members. After every change the
// kernel is asked what it holds.
//
// The cipher is GCM-AES-128, which every implementation has; the 32-bit packet
// numbers are no burden, since keys are replaced long before for other reasons.
// Frames without a valid tag are dropped (strict). The replay window is not 0:
// the kernel numbers a frame before it encrypts it, several processors encrypt
// side by side, and adapters with several queues overtake themselves, so that
// frames of one sender arrive somewhat out of order. What is played again within
// the window finds batman-adv and WireGuard behind it, which know duplicates.
package macsec

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
)

// Overhead is how many octets MACsec adds to a frame: a tag with the channel's
// identifier, and an integrity check value.
const Overhead = 16 + icvLen

// window is how far out of order frames may come: a queue of an adapter's.
const window = 256

// Name returns the name of the MACsec interface of a port. Names have 15 octets at
// most; one that is too long is replaced by the port's index.
func Name(port string, index int) string {
	if name := prefix + port; len(name) < unix.IFNAMSIZ {
		return name
	}
	return prefix + strconv.Itoa(index)
}

const prefix = "macsec-"

// Interface is the MACsec interface of a port.
type Interface struct {
	name  string
	index int
	genl  *genl
	spent map[keyID]bool // keys that this process had the kernel send by
	last  map[sak.SCI]tally
	sum   Counters
}

// Counters is what was dropped since the interface was opened.
type Counters struct {
	Late    uint64 // replayed, or further out of order than the window
	Invalid uint64 // forged, damaged, or of an unknown channel or key
}

// Open returns the MACsec interface of that name on the port, which sends from
// that address: the one that an earlier process left, if it is as it should be,
// else one made anew, that is down and has no keys. The error wraps
// fs.ErrNotExist where the kernel has no MACsec.
func Open(port netlink.Link, name string, address proof.MAC) (*Interface, error) {
	link, err := existing(name)
	if err != nil {
		return nil, err
	}
	if link != nil && !fits(link, port, address) {
		if err := netlink.LinkDel(link); err != nil {
			return nil, fmt.Errorf("macsec: remove %s, which is not what is wanted: %w", name, err)
		}
		link = nil
	}
	made := link == nil
	if made {
		if link, err = create(port, name, address); err != nil {
			return nil, err
		}
	}
	i, err := open(link, address)
	if err != nil && !made {
		// Settings cannot all be changed: begin again.
		if err := netlink.LinkDel(link); err != nil {
			return nil, fmt.Errorf("macsec: remove %s, which is not what is wanted: %w", name, err)
		}
		if link, err = create(port, name, address); err != nil {
			return nil, err
		}
		made = true
		i, err = open(link, address)
	}
	if err == nil && made {
		err = i.try()
		if err != nil {
			err = errors.Join(err, i.Close())
		}
	}
	if err != nil && made {
		_ = netlink.LinkDel(link) // the first failure is what there is to say
	}
	if err != nil {
		return nil, err
	}
	return i, nil
}

// existing returns the link of that name, nil when there is none.
func existing(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("macsec: find %s: %w", name, err)
	}
	return link, nil
}

func fits(link, port netlink.Link, address proof.MAC) bool {
	a := link.Attrs()
	return link.Type() == linkKind && a.ParentIndex == port.Attrs().Index && a.HardwareAddr.String() == address.String()
}

// create makes the link by hand: the netlink library knows none of this kind.
func create(port netlink.Link, name string, address proof.MAC) (netlink.Link, error) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range linkAttributes(port.Attrs().Index, name, address) {
		req.AddData(a)
	}
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("macsec: the kernel makes no link of kind %s: %w", linkKind, errors.Join(fs.ErrNotExist, err))
		}
		return nil, fmt.Errorf("macsec: make %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("macsec: find %s after making it: %w", name, err)
	}
	return link, nil
}

// open asks the kernel for the interface's settings, which must be those that are
// wanted.
func open(link netlink.Link, address proof.MAC) (*Interface, error) {
	g, err := dial()
	if err != nil {
		return nil, err
	}
	i := &Interface{
		name: link.Attrs().Name, index: link.Attrs().Index, genl: g,
		spent: make(map[keyID]bool), last: make(map[sak.SCI]tally),
	}
	have, err := i.read()
	if err == nil {
		err = have.suits(sak.NewSCI(address))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("macsec: %s: %w", i.name, err), i.Close())
	}
	for _, sa := range have.transmit {
		i.spent[sa.id] = true
	}
	i.count(have)
	i.sum = Counters{}
	return i, nil
}

// try has the kernel take a key that nobody has, and give it up again: its cipher
// is a module of its own, which may be missing.
func (i *Interface) try() error {
	sa := sak.Association{Key: sak.Key{1}, PN: 1}
	err := i.do(op{kind: addTransmit, sa: sa})
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("macsec: the kernel lacks the cipher GCM-AES: %w", errors.Join(fs.ErrNotExist, err))
	}
	if err != nil {
		return err
	}
	return i.do(op{kind: dropTransmit, sa: sa})
}

// Name returns the interface's name.
func (i *Interface) Name() string { return i.name }

// Close ends the conversation with the kernel; the interface stays as it is.
func (i *Interface) Close() error {
	i.genl.close()
	return nil
}

// Sync brings the kernel's channels and keys to that state. Who is to be heard no
// more is not, before anything else; a key is not sent by before others are in
// place. No key is ever sent by a second time from its first packet number on.
func (i *Interface) Sync(want sak.State) error {
	have, err := i.read()
	if err != nil {
		return fmt.Errorf("macsec: %s: %w", i.name, err)
	}
	for _, o := range plan(have, want) {
		if err := i.do(o); err != nil {
			return err
		}
	}
	if have, err = i.read(); err != nil {
		return fmt.Errorf("macsec: %s: %w", i.name, err)
	}
	if left := plan(have, want); len(left) > 0 || !have.operational {
		return fmt.Errorf("macsec: %s: expected what was set, %d steps are left, operational: %t", i.name, len(left), have.operational)
	}
	return nil
}

// Read returns what was dropped, and the number of the next packet under the key
// in use, which must be the one of want.
func (i *Interface) Read(want sak.Association) (Counters, uint32, error) {
	have, err := i.read()
	if err != nil {
		return i.sum, 0, fmt.Errorf("macsec: %s: %w", i.name, err)
	}
	i.count(have)
	sa, ok := have.transmit[want.AN]
	if !ok || have.encoding != want.AN || sa.id != identify(want.Key) || !have.operational {
		return i.sum, 0, fmt.Errorf("macsec: %s: expected to send by the key that was set, the kernel has another: %w", i.name, ErrChanged)
	}
	return i.sum, sa.pn, nil
}

// ErrChanged: somebody else has changed the interface, or its packet numbers are
// used up.
var ErrChanged = errors.New("the interface was changed")

// Remove removes the MACsec interface of that name, if there is one.
func Remove(name string) error {
	link, err := existing(name)
	if err != nil || link == nil || link.Type() != linkKind {
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("macsec: remove %s: %w", name, err)
	}
	return nil
}

// Left tells whether there is a MACsec interface of that name, such as an earlier
// process has left.
func Left(name string) (bool, error) {
	link, err := existing(name)
	return link != nil && link.Type() == linkKind, err
}
