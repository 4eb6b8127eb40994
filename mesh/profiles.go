package mesh

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/mesh/change"
	"halo.internal/mesh/profile"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// Kinds of events about the mesh profile.
const (
	eventProfileReady    = "mesh.profile.prepared" // field serial
	eventProfileSwitched = "mesh.profile.switched" // fields serial, channel
	eventProfileBack     = "mesh.profile.returned" // field channel: this device went back by itself
	eventProfileRejoined = "mesh.profile.rejoined" // fields peer, serial
	eventProfileRefused  = "mesh.profile.refused"  // fields serial, reason
	eventProfileUnkept   = "mesh.profile.unkept"   // field reason: the card does not take it
	eventProfileStarted  = "mesh.profile.started"  // fields serial, channel: of a gateway
	eventProfileMissed   = "mesh.profile.missed"   // field node: of a gateway
	eventProfileDone     = "mesh.profile.changed"  // field serial: of a gateway
	eventSecretWaits     = "mesh.secret.waits"     // of a gateway
	eventProfileUndone   = "mesh.profile.undone"   // field serial: of a gateway
)

// keptProfile is the file "mesh-profile": the documents, which are signed and hold
// secrets only sealed, and on a gateway how far a change is.
type keptProfile struct {
	_          struct{}     `cbor:",toarray"`
	Home, Next []byte       // profile documents; empty: none
	Change     change.State // of a gateway
	Due        bool         // a revocation asks for another secret
	DueSerial  uint64       // of the document that brings it; 0: it is still to be made
	Had        []string     // nodes that have had the present secret
	// Of a gateway that has adopted a document, canonical IDs: of who was a member by its
	// card, until it has the whole and knows whom that counts; and of whom it did not.
	Doubted, Out []string
}

func (k keptProfile) marshal() []byte {
	b, err := cbor.Marshal(k)
	if err != nil {
		panic("mesh: profile: " + err.Error()) // plain values always encode
	}
	return fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b))
}

func parseKeptProfile(b []byte) (k keptProfile, err error) {
	const sum = 8
	if len(b) < sum {
		return k, errors.New("mesh profile: expected a checksum at the end")
	}
	body := b[:len(b)-sum]
	if want := fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)); string(b[len(body):]) != want {
		return k, errors.New("mesh profile: checksum differs")
	}
	return k, cbor.Unmarshal(body, &k)
}

// kept is keptProfile with its documents opened.
type kept struct {
	keptProfile
	home profile.Opened
	next *profile.Opened
}

// loadProfile returns what the card keeps. Where that is damaged the bundle counts,
// and a member nearby has the document.
func (m *core) loadProfile() kept {
	var k kept
	_, err := m.store.Get(paths.Profile, paths.VaultProfile, func(b []byte) (err error) {
		k = kept{}
		if k.keptProfile, err = parseKeptProfile(b); err != nil {
			return err
		}
		if len(k.Home) > 0 {
			if k.home, err = m.openDocument(k.Home); err != nil {
				return err
			}
		}
		if len(k.Next) > 0 {
			next, err := m.openDocument(k.Next)
			if err != nil {
				return err
			}
			k.next = &next
		}
		return nil
	})
	if err == nil {
		return k
	}
	if !errors.Is(err, fs.ErrNotExist) {
		m.events.Add("mesh.profile.damaged", model.Warning, "kept mesh profile is damaged, going on with that of the bundle: "+err.Error())
	}
	return kept{}
}

func (m *core) openDocument(raw []byte) (profile.Opened, error) {
	d, err := profile.Parse(m.net, raw)
	if err != nil {
		return profile.Opened{}, err
	}
	return d.Open(m.id.Key)
}

// keepProfile writes what a restart goes on with. kept tells whether the card has it, in
// one of its places at least.
func (m *core) keepProfile(k keptProfile, home profile.Opened, next *profile.Opened) (kept bool, err error) {
	k.Home, k.Next = nil, nil
	if home.Serial != 0 {
		k.Home = home.Marshal()
	}
	if next != nil {
		k.Next = next.Marshal()
	}
	kept, err = m.store.Put(paths.Profile, paths.VaultProfile, k.marshal())
	if kept && err != nil {
		m.Log.Warn("mesh profile is not kept in both places", "err", err)
	}
	return kept, err
}

// Times of a card that takes nothing.
const (
	cardPatience = 30 * time.Second // until what it has not taken is told all the same
	cardAgain    = time.Second      // before the next try; doubles
	cardLongest  = time.Minute
)

// profileCard is how it went to write the mesh profile. A device whose card is full, worn out or
// gone still has to go where the mesh goes: it gives the card some time, then runs from
// RAM and says so. After a power cut it has what the card took last, and finds its way
// from there, as one does that was off.
type profileCard struct {
	fails time.Time // since when it takes nothing; zero: it does
	err   error     // why
	wait  time.Duration
	again time.Time
}

// due tells whether it is to be tried.
func (c *profileCard) due(now time.Time) bool { return !now.Before(c.again) }

// wrote notes how it went, and tells whether it has begun to fail.
func (c *profileCard) wrote(now time.Time, kept bool, err error) (began bool) {
	if kept {
		*c = profileCard{}
		return false
	}
	if began = c.fails.IsZero(); began {
		c.fails = now
	}
	c.err, c.wait = err, min(max(2*c.wait, cardAgain), cardLongest)
	c.again = now.Add(c.wait)
	return began
}

// waits tells whether what was to be written is not to be told yet.
func (c *profileCard) waits(now time.Time) bool {
	return !c.fails.IsZero() && now.Sub(c.fails) < cardPatience
}

// tellUnkept tells of a card that has begun to fail.
func (m *core) tellUnkept(err error) {
	m.events.Add(eventProfileUnkept, model.Error, "the card does not take the mesh profile; this device follows changes of it all the same, and after a power cut has to look for the mesh by the profile that it had before: "+err.Error(), "reason", err.Error())
}

// startProfile returns the profile that this start begins with.
func (m *core) startProfile() bundle.Mesh {
	k := m.loadProfile()
	if m.Role == model.RoleGateway {
		return change.NewGateway(m.ChangeTiming, m.bundle.Mesh, k.home, k.next, k.Change, m.begun).On()
	}
	return change.NewNode(m.ChangeTiming, m.bundle.Mesh, k.home, k.next, m.begun).On()
}

// links counts the members that this device is linked with.
func (m *core) links() int {
	n := 0
	for _, p := range m.under.Ports() {
		n += len(p.Members)
	}
	for _, r := range m.under.Standing() {
		n += r.Linked()
	}
	return n
}

func parametersOf(m bundle.Mesh) model.MeshParameters {
	m = m.WithDefaults()
	return model.MeshParameters{
		Routing: m.Routing, HopPenalty: m.HopPenalty, Channel: m.Channel, Width: m.Width, MFP: m.MFP, SAE: m.SAE,
		BeaconInterval: m.BeaconInterval, HaLowChannel: m.HaLowChannel, HaLowScheme: m.HaLowScheme,
	}
}

// describeProfile says which profile that is, for people.
func describeProfile(m bundle.Mesh) string {
	s := fmt.Sprintf("channel %d", m.Channel)
	if m.HaLowChannel != 0 {
		s += fmt.Sprintf(", HaLow channel %d", m.HaLowChannel)
	}
	return s
}

// profileStatus is what both sides tell of the document that counts.
func profileStatus(on bundle.Mesh, home profile.Opened) model.MeshProfile {
	p := model.MeshProfile{
		MeshParameters: parametersOf(on), SSID: on.SSID, Epoch: home.Epoch, Serial: home.Serial, Phase: string(change.Idle),
		Nodes: []model.NodeProfile{}, Former: []model.FormerProfile{},
	}
	if home.Serial != 0 {
		p.Issued = &home.Issued
	}
	for _, f := range home.Former {
		p.Former = append(p.Former, model.FormerProfile{MeshParameters: parametersOf(f.Mesh), Until: f.Until})
	}
	return p
}
