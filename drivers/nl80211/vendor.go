package nl80211

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// VendorID names a vendor's command or event.
type VendorID struct {
	OUI        uint32 // e.g. 0x0cbf74
	Subcommand uint32
}

// String returns e.g. "0c:bf:74/0".
func (v VendorID) String() string {
	return fmt.Sprintf("%02x:%02x:%02x/%d", byte(v.OUI>>16), byte(v.OUI>>8), byte(v.OUI), v.Subcommand)
}

// Vendor makes a vendor's request on an interface and returns the data of the
// answers, in order; many commands have none. nested says that data are netlink
// attributes: a driver takes either those or plain octets, by command, and the
// kernel refuses the other.
func (c *Conn) Vendor(index int, id VendorID, data []byte, nested bool) ([][]byte, error) {
	kind := uint16(unix.NL80211_ATTR_VENDOR_DATA)
	if nested {
		kind |= unix.NLA_F_NESTED
	}
	answers, err := c.do("vendor command "+id.String(), request{command: unix.NL80211_CMD_VENDOR, attrs: func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Uint32(unix.NL80211_ATTR_VENDOR_ID, id.OUI)
		e.Uint32(unix.NL80211_ATTR_VENDOR_SUBCMD, id.Subcommand)
		if data != nil {
			e.Bytes(kind, data)
		}
	}})
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, a := range answers {
		err = walk(a.Data, func(d *netlink.AttributeDecoder) {
			if d.Type() == unix.NL80211_ATTR_VENDOR_DATA {
				all = append(all, octets(d))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
