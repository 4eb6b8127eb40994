package profile

import (
	"bytes"
	"flag"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// FuzzParse: what passes for a document of the network survives, and of nobody else
// anything passes.
func FuzzParse(f *testing.F) {
	network := key(f, 0)
	doc := signed(f, draft(f, 3))
	x, err := doc.Excerpt(key(f, 1).Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc.Marshal())
	f.Add(x.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(network.Public(), b)
		if err != nil {
			return
		}
		if !bytes.Equal(d.head, doc.head) {
			t.Fatal("a document was taken that nobody signed")
		}
		if again, err := Parse(network.Public(), d.Marshal()); err != nil || again.Serial != d.Serial {
			t.Fatalf("it does not survive: %v", err)
		}
	})
}

// FuzzHead takes heads as if they were signed.
func FuzzHead(f *testing.F) {
	network := key(f, 0)
	d := draft(f, 3)
	f.Add(signed(f, d).head)
	d.Mesh.HopPenalty, d.Former[0].Mesh.HopPenalty = 60, 255
	f.Add(signed(f, d).head)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseHead(network.Public(), b, network.Sign(context, b))
		if err != nil {
			return
		}
		if err := d.check(false); err != nil {
			t.Fatal(err)
		}
		_, _ = d.Open(key(t, 1)) // it has no entries
	})
}
