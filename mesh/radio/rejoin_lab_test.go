//go:build lab

package radio_test

import (
	"net"
	"testing"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/identity"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/profile"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/rejoin"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
)

// heard is what a radio heard past the mesh.
type heard struct {
	from    dot11.MAC
	payload []byte
}

// TestAMemberWithAFormerSecretRejoins has a radio with another secret get the
// document past the mesh, for which the kernel has to let frames of stations through
// that it does not know; it is none to the others meanwhile.
func TestAMemberWithAFormerSecretRejoins(t *testing.T) {
	for name, mfp := range map[string]peering.MFP{"management frames protected": peering.MFPRequired, "management frames not protected": peering.MFPOff} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			network, old, current := identity.New(), identity.New(), identity.New()
			members := []identity.PublicKey{network.Public(), old.Public(), current.Public()}
			doc, err := profile.Sign(network, profile.Draft{
				Epoch: 1, Serial: 2, Issued: time.Now(), Mesh: bundle.Mesh{SSID: meshID, PSK: "the secret that holds", Routing: "BATMAN_IV"},
				Members: members,
			})
			l.ok(err)
			engine := func(k identity.Key, d profile.Document) *rejoin.Engine {
				return rejoin.New(rejoin.Config{
					Key: k, Network: network.Public(), Document: func(identity.PublicKey) (profile.Document, bool) { return d, d.Whole() },
					Members: func() []identity.PublicKey { return members },
					Boot:    1, Since: func() uint64 { return 0 },
				})
			}
			secret := func(s string, to chan heard) func(*radio.Config) {
				return func(c *radio.Config) {
					c.Password, c.MFP = s, mfp
					c.Strange = func(_ string, from dot11.MAC, payload []byte) {
						select {
						case to <- heard{from, payload}:
						default:
						}
					}
				}
			}
			atOld, atCurrent, other := make(chan heard, 64), make(chan heard, 64), make(chan heard, 64)
			a := l.member(secret("the secret before", atOld))
			b, c := l.member(secret("the secret that holds", atCurrent)), l.member(secret("the secret that holds", other))
			l.link(b, c) // who has links hears strangers too
			asker, answerer := engine(old, profile.Document{}), engine(current, doc)

			var got *profile.Document
			began := time.Now()
			asked := time.Time{}
			l.until("the document", func() bool {
				if time.Since(asked) > 5*time.Second { // a member answers the same one once in 4 s
					asked = time.Now()
					a.Say(dot11.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, asker.Request(time.Now(), profile.Document{}))
				}
				select {
				case h := <-atCurrent:
					if answer, _, err := answerer.Handle(time.Now(), h.payload); err == nil {
						b.Say(h.from, answer)
					}
				case h := <-atOld:
					if _, d, err := asker.Handle(time.Now(), h.payload); err == nil {
						got = d
					}
				default:
				}
				return got != nil
			})
			t.Logf("it took %s", time.Since(began))
			for _, m := range []*member{b, c} {
				i, err := net.InterfaceByName(m.iface)
				l.ok(err)
				if s, err := l.conn.Station(i.Index, a.mac); err == nil && s.Plink == nl80211.PlinkEstab {
					t.Error("a member with a former secret has a link")
				}
			}
			o, err := got.Open(old)
			l.ok(err)
			l.ok(a.stop())
			l.run(a, l.wiphyOf(a), secret(o.Mesh.PSK, atOld))
			l.link(a, b)
		})
	}
}
