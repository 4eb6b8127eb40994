// Package hwsim speaks mac80211_hwsim's generic netlink interface: it makes and
// removes simulated radios, and it is the medium between them, to which the
// driver hands every frame instead of delivering it itself. Numbers are those of
// the kernel's drivers/net/wireless/virtual/mac80211_hwsim.h.
package hwsim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const familyName = "MAC80211_HWSIM"

// Commands.
const (
	cmdRegister = 1
	cmdFrame    = 2
	cmdTxInfo   = 3
	cmdNewRadio = 4
	cmdDelRadio = 5
	cmdGetRadio = 6
)

// Attributes.
const (
	attrReceiver    = 1
	attrTransmitter = 2
	attrFrame       = 3
	attrFlags       = 4
	attrRxRate      = 5
	attrSignal      = 6
	attrTxInfo      = 7
	attrCookie      = 8
	attrChannels    = 9
	attrRadioID     = 10
	attrAlpha2      = 11
	attrDestroy     = 16
	attrName        = 17
	attrNoVIF       = 18
	attrFreq        = 19
	attrPermAddr    = 22
	attrIftypes     = 23
	attrCiphers     = 24
)

// Conn makes requests, from one goroutine at a time.
type Conn struct {
	conn *genetlink.Conn
	fam  genetlink.Family
}

// Dial opens a socket in the network namespace with that descriptor; 0 is the
// caller's. The error wraps fs.ErrNotExist where the module is not loaded.
func Dial(ns int) (*Conn, error) {
	conn, err := genetlink.Dial(&netlink.Config{NetNS: ns, PID: port()})
	if err != nil {
		return nil, fmt.Errorf("hwsim: generic netlink: %w", err)
	}
	fam, err := conn.GetFamily(familyName)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = errors.Join(fs.ErrNotExist, err)
		}
		return nil, errors.Join(fmt.Errorf("hwsim: mac80211_hwsim is not loaded: %w", err), conn.Close())
	}
	return &Conn{conn, fam}, nil
}

// port returns a netlink port that no socket of another family has. When any netlink
// socket closes, of routing for example, the driver removes the radios that belong
// to a socket of the same port (mac80211_hwsim_netlink_notify), and of each family
// the first socket of a process has the process's number. The kernel draws the
// others from those with the highest bit (netlink_autobind).
func port() uint32 { return 1<<30 | rand.Uint32N(1<<30) }

// Close closes the socket, and removes the radios that it owns.
func (c *Conn) Close() error { return c.conn.Close() }

// Radio is a simulated radio to be made.
type Radio struct {
	Name     string           // of the wiphy; empty leaves it to the kernel
	MAC      net.HardwareAddr // permanent address; nil leaves it to the kernel
	Channels int              // at once; 0 is 1. Above 1 there can be no Medium
	Alpha2   string           // country that the driver hints; may be empty
	NoVIF    bool             // no interface to begin with
	Owned    bool             // it goes away with the Conn
	Iftypes  uint32           // bits 1<<NL80211_IFTYPE_* that it supports; 0 is all
	Ciphers  []uint32         // suites that it supports; nil is all
}

// NewRadio makes a radio and returns its number.
func (c *Conn) NewRadio(r Radio) (id int, err error) {
	e := netlink.NewAttributeEncoder()
	if r.Name != "" {
		e.Bytes(attrName, []byte(r.Name)) // not NUL-terminated
	}
	if r.MAC != nil {
		e.Bytes(attrPermAddr, r.MAC)
	}
	e.Uint32(attrChannels, uint32(max(r.Channels, 1)))
	if r.Alpha2 != "" {
		e.Bytes(attrAlpha2, []byte(r.Alpha2))
	}
	e.Flag(attrNoVIF, r.NoVIF)
	e.Flag(attrDestroy, r.Owned)
	if r.Iftypes != 0 {
		e.Uint32(attrIftypes, r.Iftypes)
	}
	if r.Ciphers != nil {
		var b []byte
		for _, v := range r.Ciphers {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		e.Bytes(attrCiphers, b)
	}
	err = c.do(cmdNewRadio, e)
	// The number comes as a positive error code.
	if errno, ok := errors.AsType[syscall.Errno](err); ok && int(errno) < 0 {
		return -int(errno), nil
	}
	if err != nil {
		return 0, fmt.Errorf("hwsim: make radio %s: %w", r.Name, err)
	}
	return 0, nil
}

// DeleteRadio removes a radio, as if it had been unplugged.
func (c *Conn) DeleteRadio(id int) error {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrRadioID, uint32(id))
	if err := c.do(cmdDelRadio, e); err != nil {
		return fmt.Errorf("hwsim: remove radio %d: %w", id, err)
	}
	return nil
}

// Radios returns the numbers of the radios by the names of their wiphys.
func (c *Conn) Radios() (map[string]int, error) {
	answers, err := c.conn.Execute(genetlink.Message{Header: genetlink.Header{Command: cmdGetRadio, Version: c.fam.Version}}, c.fam.ID, netlink.Request|netlink.Dump)
	if err != nil {
		return nil, fmt.Errorf("hwsim: list radios: %w", err)
	}
	all := map[string]int{}
	for _, a := range answers {
		d, err := netlink.NewAttributeDecoder(a.Data)
		if err != nil {
			return nil, fmt.Errorf("hwsim: list radios: %w", err)
		}
		name, id := "", 0
		for d.Next() {
			switch d.Type() {
			case attrRadioID:
				id = int(d.Uint32())
			case attrName:
				name = d.String()
			}
		}
		if err := d.Err(); err != nil {
			return nil, fmt.Errorf("hwsim: list radios: %w", err)
		}
		all[name] = id
	}
	return all, nil
}

func (c *Conn) do(command uint8, e *netlink.AttributeEncoder) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = c.conn.Execute(genetlink.Message{Header: genetlink.Header{Command: command, Version: c.fam.Version}, Data: b}, c.fam.ID, netlink.Request|netlink.Acknowledge)
	return err
}
