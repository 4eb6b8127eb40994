package command

import (
	"testing"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// BenchmarkOrder is what an order costs a node that has to judge it, and its gateway
// that signs it, and how many octets it is.
func BenchmarkOrder(b *testing.B) {
	net := identity.New()
	o := wire.Order{Node: identity.New().ID(), Session: Nonce(), ID: wire.NewCommandID(40_000, 1_000_000), Epoch: 40_000, Deadline: 300_000, Limit: 600_000, By: "user:administrator",
		Command: model.Command{Kind: model.CommandCapture, Capture: &model.CaptureRequest{Radio: "phy0", Seconds: 10, Bytes: 256 << 10}}}
	for b.Loop() {
		octets, err := o.Encode()
		if err != nil {
			b.Fatal(err)
		}
		m, err := wire.Marshal(wire.CommandMessage{Order: octets, Signature: net.Sign(wire.CommandContext, octets)})
		if err != nil {
			b.Fatal(err)
		}
		got, err := wire.Unmarshal(m)
		if err != nil {
			b.Fatal(err)
		}
		c := got.(wire.CommandMessage)
		if !net.Public().Verify(wire.CommandContext, c.Order, c.Signature) {
			b.Fatal("the signature does not fit")
		}
		if _, err := wire.DecodeOrder(c.Order); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(m)), "octets")
	}
}
