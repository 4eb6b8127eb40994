//go:build lab

package systemtest_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"

	"halo.internal/ctl/client"
	"halo.internal/lab/network"
	"halo.internal/lab/systemtest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// frame is one of the capture's.
type frame []byte

func (f frame) source() string { return net.HardwareAddr(f[6:12]).String() }
func (f frame) kind() uint16   { return binary.BigEndian.Uint16(f[12:14]) }

// frames reads the capture so far.
func (l *lab) frames() ([]frame, error) {
	b, err := os.ReadFile(l.pcap)
	if err != nil {
		return nil, err
	}
	const head, recordHead = 24, 16
	var all []frame
	for b = b[head:]; len(b) >= recordHead; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if len(b) < recordHead+n {
			break // it is being written
		}
		all = append(all, b[recordHead:recordHead+n])
		b = b[recordHead+n:]
	}
	return all, nil
}

// nothingPlain looks through everything that was ever on the switch: each frame
// must be of a kind that is sealed or shows nothing, and none may hold a secret.
// Only the former sees telemetry, which the stream masks and packs.
func nothingPlain(t *testing.T, l *lab) {
	secrets := map[string][]byte{}
	add := func(what string, b []byte) {
		if len(b) >= 4 { // fewer are found anywhere by chance
			secrets[what] = b
		}
	}
	readings, err := l.api.Telemetry(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(readings) == 0 {
		t.Fatal("no readings to look for")
	}
	for _, r := range readings {
		add("the name "+r.Metric, []byte(r.Metric))
		if r.Value >= 1e4 {
			text := strconv.FormatFloat(r.Value, 'f', -1, 64)
			add("the value "+text+" of "+r.Metric, []byte(text))
		}
	}
	add("a request of HTTP", []byte("HTTP/1.1"))
	add("the way to the stream", []byte("/v1/nodes/stream"))
	b := l.net.Bundles
	for what, text := range map[string]string{"mesh secret": b.Node.Mesh.PSK, "join token": b.Node.Join.Token, "claim code": b.Gateway.Gateway.ClaimCode, "network's seed": b.Gateway.Gateway.Seed} {
		add(what, []byte(text))
	}
	all, err := l.frames()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[uint16]int{}
	var sealed systemtest.Sealed
	const most = 20 // one kind of frame comes again and again
	open := 0
	for i, f := range all {
		if err := sealed.Check(f); err != nil {
			if open++; open <= most {
				t.Errorf("frame %d: %v", i, err)
			}
		}
		kinds[f.kind()]++
		for what, s := range secrets {
			if bytes.Contains(f, s) {
				t.Errorf("frame %d of type %#04x from %s shows %s", i, f.kind(), f.source(), what)
			}
		}
	}
	if open > most {
		t.Errorf("and %d frames more like these", open-most)
	}
	if kinds[paths.EtherTypeProof] == 0 || kinds[paths.EtherTypeMACsec] == 0 || kinds[paths.EtherTypeBatman] != 0 {
		t.Errorf("frames by type: %v, want proofs and MACsec, and batman-adv nowhere but in it", kinds)
	}
	t.Logf("%d frames, by type %v; looked for %d texts", len(all), kinds, len(secrets))
}

// stranger plugs a member of another network into the switch: it is heard, and
// stays outside.
func stranger(t *testing.T, l *lab) {
	other, err := network.NewBundles("another", 1, l.now(t))
	if err != nil {
		t.Fatal(err)
	}
	other.Node.Name = "stranger"
	other.Node.Ports["eth1"] = "mesh" // or it would serve clients there, which is no knocking
	text, err := other.Node.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.net.Add(t.Context(), network.Spec{Name: "stranger", Role: model.RoleNode, Image: l.image(model.RoleNode), Bundle: text})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.net.PowerOn(m); err != nil {
		t.Fatal(err)
	}
	l.awaitBoot(t, m)
	const enough = 20 // several rounds of the proof
	address := ""
	l.eventually(t, "the stranger knocks again and again", func() error {
		d, err := m.Diag(t.Context())
		if err != nil {
			return err
		}
		if err := expect(d.Mesh != nil, "its mesh status"); err != nil {
			return err
		}
		for _, i := range d.Mesh.Interfaces {
			if i.Name == "eth1" {
				address = i.MAC
			}
		}
		all, err := l.frames()
		if err != nil {
			return err
		}
		knocks := 0
		for _, f := range all {
			if f.source() == address && f.kind() == paths.EtherTypeProof {
				knocks++
			}
		}
		return expect(knocks >= enough, "%d proofs from %q, got %d", enough, address, knocks)
	})
	all, err := l.frames()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.source() == address && f.kind() != paths.EtherTypeProof {
			t.Errorf("the stranger sent a frame of type %#04x", f.kind())
			break
		}
	}
	d, err := m.Diag(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Mesh.Neighbours) != 0 || d.Mesh.Joined {
		t.Errorf("the stranger has neighbours %+v, joined %v", d.Mesh.Neighbours, d.Mesh.Joined)
	}
	for _, p := range d.Mesh.Ports {
		if len(p.Members) != 0 {
			t.Errorf("the stranger holds %v for members", p.Members)
		}
	}
	for _, member := range l.net.Machines()[:len(l.nodes)+1] {
		if err := l.unknown(t, member, d.Mesh.Node, address); err != nil {
			t.Errorf("%s: %v", member.Name(), err)
		}
	}
	nodes, err := l.api.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkNodes(nodes, len(l.nodes)); err != nil {
		t.Error(err)
	}
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
}

// unknown checks that a member has neither the stranger's key nor its address.
func (l *lab) unknown(t *testing.T, member *network.Machine, node, address string) error {
	var status model.MeshStatus
	if member == l.gateway {
		s, err := l.api.MeshStatus(t.Context())
		if err != nil {
			return err
		}
		status = s
	} else {
		d, err := member.Diag(t.Context())
		if err != nil {
			return err
		}
		if d.Mesh == nil {
			return fmt.Errorf("expected its mesh status, got %+v", d)
		}
		status = *d.Mesh
	}
	for _, n := range status.Neighbours {
		if n.MAC == address || n.Node == node {
			return fmt.Errorf("the stranger is its neighbour: %+v", n)
		}
	}
	for _, p := range status.Ports {
		for _, id := range p.Members {
			if id == node {
				return fmt.Errorf("the stranger is a member on %s", p.Iface)
			}
		}
	}
	return nil
}

func eventsOf(m *network.Machine, kind string) client.EventFilter {
	return client.EventFilter{Node: m.Name(), Kind: kind}
}
