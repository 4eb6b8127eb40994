//go:build !lab

package overlay

import (
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// slow is a WireGuard that takes its time over each change, but answers meanwhile.
type slow struct {
	table
	begun, end chan struct{}
}

func (s *slow) configure(c wgtypes.Config) error {
	s.begun <- struct{}{}
	<-s.end
	return s.table.configure(c)
}

// TestStatusDoesNotWaitForAChange asks for all that is known of the peers while
// WireGuard is busy with new ones.
func TestStatusDoesNotWaitForAChange(t *testing.T) {
	w := &slow{table: table{has: map[wgtypes.Key]wgtypes.PeerConfig{{9}: {PublicKey: wgtypes.Key{9}}}}, begun: make(chan struct{}), end: make(chan struct{})}
	d := &Device{backend: w, peers: map[[32]byte]Peer{{9}: {Node: "old", Key: [32]byte{9}}}, moved: map[[32]byte]bool{}}
	set := make(chan error)
	go func() { set <- d.SetPeers([]Peer{{Node: "new", Key: [32]byte{1}, Next: [32]byte{2}}}) }()
	<-w.begun // to remove the old one
	if s, err := d.Status(); err != nil || len(s) != 1 {
		t.Errorf("while a peer is removed: %+v, %v, want that one", s, err)
	}
	if !d.Rekeying() {
		t.Error("while a peer is removed: no next key is awaited")
	}
	if err := d.Promote(); err != nil { // nobody has used the next key
		t.Error(err)
	}
	w.end <- struct{}{}
	<-w.begun // to add the new one
	w.end <- struct{}{}
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	s, err := d.Status()
	if err != nil || len(s) != 2 || s[0].Node != "new" || s[1].Node != "new" {
		t.Errorf("got %+v, %v, want the new one with both of its keys", s, err)
	}
}
