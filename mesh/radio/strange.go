package radio

import (
	"bytes"
	"encoding/binary"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// What is said past the mesh are self-protected action frames (9.6.15) of a number
// that the standard reserves, and three octets by which ours are told. On a mesh,
// mac80211 lets nothing else in from stations that it does not know, but beacons,
// probes and authentication, and makes no station of who sends it; these are not
// encrypted, whatever protects other management frames.
var strange = []byte{15, 200, 0x52, 0x48, 0x4c}

// maxSaid is how many frames wait to be sent; more are lost.
const maxSaid = 8

// managementHeader is the length of what comes before the body of a frame (9.3.3.2).
const managementHeader = 24

// maxStrange bounds a payload: management frames are not cut in pieces (10.4).
const maxStrange = 1500

// Say sends a payload past the mesh, to who is not linked too.
func (r *Radio) Say(to dot11.MAC, payload []byte) {
	if len(payload) > maxStrange {
		return
	}
	r.mu.Lock()
	up, own := r.up, r.own
	r.mu.Unlock()
	if !up {
		return
	}
	f := binary.LittleEndian.AppendUint16(nil, nl80211.FrameAction)
	f = append(f, 0, 0) // duration
	f = append(f, to[:]...)
	f = append(f, own[:]...)
	f = append(f, own[:]...)
	f = append(f, 0, 0) // sequence
	f = append(append(f, strange...), payload...)
	select {
	case r.say <- f:
	default:
	}
}

// isStrange tells whether a frame was said past the mesh, and hands it on.
func (r *Radio) isStrange(frame []byte) bool {
	if len(frame) < managementHeader+len(strange) || frame[0] != byte(nl80211.FrameAction) || !bytes.HasPrefix(frame[managementHeader:], strange) {
		return false
	}
	if from, ok := sender(frame); ok && r.c.Strange != nil && !from.Group() && from != r.own {
		r.c.Strange(r.c.Iface, from, bytes.Clone(frame[managementHeader+len(strange):]))
	}
	return true
}

// Say sends a payload past the mesh by the radio of that interface, or by all.
func (rs *Radios) Say(iface string, to dot11.MAC, payload []byte) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, h := range rs.held {
		if iface == "" || h.iface == iface {
			h.radio.Say(to, payload)
		}
	}
}
