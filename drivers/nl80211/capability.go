package nl80211

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Need is one thing that a driver must be able to do.
type Need struct {
	Name string // for people
	Met  func(Wiphy) bool
}

// UnsupportedError says what a driver lacks for what is asked of it.
type UnsupportedError struct {
	Wiphy   string
	Missing []string // names of the needs
}

// Error names everything that is missing.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("nl80211: the driver of %s cannot do what is needed: %s", e.Wiphy, strings.Join(e.Missing, "; "))
}

// Check returns nil if w meets all needs, and an *UnsupportedError otherwise.
func (w Wiphy) Check(needs ...Need) error {
	var missing []string
	for _, n := range needs {
		if !n.Met(w) {
			missing = append(missing, n.Name)
		}
	}
	if missing == nil {
		return nil
	}
	return &UnsupportedError{Wiphy: w.Name, Missing: missing}
}

// Management frames by their frame control field.
const (
	FrameAuthentication = 0x00b0
	FrameAction         = 0x00d0
)

// OpenMesh returns what an 802.11s mesh without authentication needs.
func OpenMesh() []Need {
	return []Need{
		{"mesh interfaces", func(w Wiphy) bool { return slices.Contains(w.InterfaceTypes, MeshPoint) }},
		NeedCommand("joining a mesh (JOIN_MESH)", unix.NL80211_CMD_JOIN_MESH),
	}
}

// SecureMesh returns what an 802.11s mesh needs whose peers are authenticated,
// and peered, outside of the kernel.
func SecureMesh() []Need {
	return append(OpenMesh(),
		Need{"peering by the user's side (FEATURE_USERSPACE_MPM)", func(w Wiphy) bool { return w.Features&unix.NL80211_FEATURE_USERSPACE_MPM != 0 }},
		Need{"authentication by the user's side (SUPPORT_MESH_AUTH)", func(w Wiphy) bool { return w.MeshAuth }},
		Need{"a group key per peer (SUPPORT_IBSS_RSN)", func(w Wiphy) bool { return w.PeerGroupKeys }},
		NeedCipher(CCMP),
		NeedCipher(BIP),
		needFrame("sending", FrameAuthentication, func(w Wiphy) map[InterfaceType][]uint16 { return w.SendFrames }),
		needFrame("sending", FrameAction, func(w Wiphy) map[InterfaceType][]uint16 { return w.SendFrames }),
		needFrame("receiving", FrameAuthentication, func(w Wiphy) map[InterfaceType][]uint16 { return w.RegisterFrames }),
		needFrame("receiving", FrameAction, func(w Wiphy) map[InterfaceType][]uint16 { return w.RegisterFrames }),
	)
}

// NeedCipher is the need for a cipher.
func NeedCipher(c Cipher) Need {
	return Need{"cipher " + c.String(), func(w Wiphy) bool { return slices.Contains(w.Ciphers, c) }}
}

// NeedCommand is the need for a command that drivers may lack.
func NeedCommand(name string, command uint8) Need {
	return Need{name, func(w Wiphy) bool { return slices.Contains(w.Commands, command) }}
}

// NeedVendor is the need for a vendor's command.
func NeedVendor(id VendorID) Need {
	return Need{"vendor command " + id.String(), func(w Wiphy) bool { return slices.Contains(w.VendorCommands, id) }}
}

// ChannelSwitching is the need for announced channel switches.
func ChannelSwitching() Need {
	return NeedCommand("announced channel switches (CHANNEL_SWITCH)", unix.NL80211_CMD_CHANNEL_SWITCH)
}

func needFrame(doing string, frame uint16, of func(Wiphy) map[InterfaceType][]uint16) Need {
	name := fmt.Sprintf("%s frames of type %#06x on a mesh interface", doing, frame)
	return Need{name, func(w Wiphy) bool { return slices.Contains(of(w)[MeshPoint], frame) }}
}
