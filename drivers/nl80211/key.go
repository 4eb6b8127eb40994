package nl80211

import (
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Cipher is a cipher suite: OUI and type, the OUI in the higher octets.
type Cipher uint32

// Cipher suites of a secure mesh.
const (
	CCMP Cipher = 0x000fac04 // CCMP-128, for frames
	BIP  Cipher = 0x000fac06 // BIP-CMAC-128, for multicast management frames
)

// String returns the suite as iw does: its name or OUI and type.
func (c Cipher) String() string {
	switch c {
	case CCMP:
		return "CCMP-128 (00-0f-ac:4)"
	case BIP:
		return "BIP-CMAC-128 (00-0f-ac:6)"
	}
	return fmt.Sprintf("%02x-%02x-%02x:%d", byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
}

// KeyType says whom a key is shared with (NL80211_KEYTYPE_*).
type KeyType uint32

// Key types.
const (
	GroupKey    KeyType = unix.NL80211_KEYTYPE_GROUP
	PairwiseKey KeyType = unix.NL80211_KEYTYPE_PAIRWISE
)

// Key is a key for the kernel to encrypt or decrypt with.
type Key struct {
	Index  uint8 // 0 pairwise, 1 group, 4 and 5 management group
	Cipher Cipher
	Data   []byte
	Seq    []byte // the last counter that the other side has used: 6 octets, or nil
	// MAC is the station that the key is from; nil for our own group keys.
	MAC  net.HardwareAddr
	Type KeyType
}

// AddKey installs a key. That of a station needs it to be Authenticated and
// Authorized; the error wraps fs.ErrNotExist when it is not.
func (c *Conn) AddKey(index int, k Key) error {
	return c.set("install key", unix.NL80211_CMD_NEW_KEY, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		if k.MAC != nil {
			e.Bytes(unix.NL80211_ATTR_MAC, k.MAC)
		}
		fill(e, unix.NL80211_ATTR_KEY, func(n *netlink.AttributeEncoder) {
			n.Bytes(unix.NL80211_KEY_DATA, k.Data)
			n.Uint32(unix.NL80211_KEY_CIPHER, uint32(k.Cipher))
			n.Uint8(unix.NL80211_KEY_IDX, k.Index)
			if k.Seq != nil {
				n.Bytes(unix.NL80211_KEY_SEQ, k.Seq)
			}
			if k.MAC != nil {
				n.Uint32(unix.NL80211_KEY_TYPE, uint32(k.Type))
			}
		})
	})
}

// UseGroupKey makes an installed key the one that multicast frames are sent
// with.
func (c *Conn) UseGroupKey(index int, key uint8) error {
	return c.useKey(index, func(n *netlink.AttributeEncoder) {
		n.Uint8(unix.NL80211_KEY_IDX, key)
		n.Flag(unix.NL80211_KEY_DEFAULT, true)
		fill(n, unix.NL80211_KEY_DEFAULT_TYPES, func(t *netlink.AttributeEncoder) { t.Flag(unix.NL80211_KEY_DEFAULT_TYPE_MULTICAST, true) })
	})
}

// UseManagementKey makes an installed key the one that multicast management
// frames are protected with.
func (c *Conn) UseManagementKey(index int, key uint8) error {
	return c.useKey(index, func(n *netlink.AttributeEncoder) {
		n.Uint8(unix.NL80211_KEY_IDX, key)
		n.Flag(unix.NL80211_KEY_DEFAULT_MGMT, true)
	})
}

func (c *Conn) useKey(index int, key func(n *netlink.AttributeEncoder)) error {
	return c.set("use key", unix.NL80211_CMD_SET_KEY, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		fill(e, unix.NL80211_ATTR_KEY, key)
	})
}

// DeleteKey removes a key; mac is nil for our own.
func (c *Conn) DeleteKey(index int, key uint8, mac net.HardwareAddr, t KeyType) error {
	return c.set("remove key", unix.NL80211_CMD_DEL_KEY, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		if mac != nil {
			e.Bytes(unix.NL80211_ATTR_MAC, mac)
		}
		fill(e, unix.NL80211_ATTR_KEY, func(n *netlink.AttributeEncoder) {
			n.Uint8(unix.NL80211_KEY_IDX, key)
			if mac != nil {
				n.Uint32(unix.NL80211_KEY_TYPE, uint32(t))
			}
		})
	})
}

// KeySeq returns the counter of the last frame that was sent with one of our own
// keys (mac is nil) or received with a station's: what a peer needs as Seq.
func (c *Conn) KeySeq(index int, key uint8, mac net.HardwareAddr, t KeyType) (seq []byte, err error) {
	b, err := c.get("read key's counter", unix.NL80211_CMD_GET_KEY, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Uint8(unix.NL80211_ATTR_KEY_IDX, key)
		if mac != nil {
			e.Bytes(unix.NL80211_ATTR_MAC, mac)
			e.Uint32(unix.NL80211_ATTR_KEY_TYPE, uint32(t))
		}
	})
	if err != nil {
		return nil, err
	}
	err = walk(b, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NL80211_ATTR_KEY_SEQ {
			seq = octets(d)
		}
	})
	return seq, err
}
