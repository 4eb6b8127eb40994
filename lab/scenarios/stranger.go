package scenarios

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"halo.internal/lab/host"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Frames reads what was captured on the switch so far.
func (w *World) Frames() ([]host.Frame, error) {
	b, err := os.ReadFile(w.Capture)
	if err != nil {
		return nil, err
	}
	const head, recordHead, least = 24, 16, 14
	if len(b) < head {
		return nil, fmt.Errorf("%s: expected a capture, got %d octets", w.Capture, len(b))
	}
	var all []host.Frame
	for b = b[head:]; len(b) >= recordHead; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if len(b) < recordHead+n {
			break // it is being written
		}
		if n >= least {
			all = append(all, host.Frame(b[recordHead:recordHead+n]))
		}
		b = b[recordHead+n:]
	}
	return all, nil
}

// knocks are the proofs that the stranger sent until it is believed that it gets no
// answer: several rounds.
const knocks = 20

// stranger plugs a member of another network into the switch: it is heard, and
// stays outside.
func stranger(ctx context.Context, w *World, r *Result) (err error) {
	info, err := w.Admin.System(ctx)
	if err != nil {
		return err
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	m, err := w.Net.AddStranger(ctx, "stranger", info.Time)
	if err != nil {
		return err
	}
	if err := w.Net.PowerOn(m); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.PowerCut()) }()
	if err := w.answers(ctx, m); err != nil {
		return err
	}
	address := ""
	if err := w.eventually(ctx, "the stranger knocks again and again", func() error {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		for _, i := range s.Interfaces {
			if i.Name == "eth1" {
				address = i.MAC
			}
		}
		all, err := w.Frames()
		if err != nil {
			return err
		}
		n := 0
		for _, f := range all {
			if f.From().String() == address && f.Kind() == paths.EtherTypeProof {
				n++
			}
		}
		return expect(n >= knocks, "%d proofs from %q, got %d", knocks, address, n)
	}); err != nil {
		return err
	}
	all, err := w.Frames()
	if err != nil {
		return err
	}
	for _, f := range all {
		// A lonely node also asks all around for its own network's profile.
		if f.From().String() == address && f.Kind() != paths.EtherTypeProof && f.Kind() != paths.EtherTypeRejoin {
			return fmt.Errorf("the stranger sent a frame of type %#04x", f.Kind())
		}
	}
	s, _, err := w.status(ctx, m)
	if err != nil {
		return err
	}
	if len(s.Neighbours) != 0 || s.Joined {
		return fmt.Errorf("the stranger has neighbours %+v, joined %v", s.Neighbours, s.Joined)
	}
	for _, p := range s.Ports {
		if len(p.Members) != 0 {
			return fmt.Errorf("the stranger holds %v for members", p.Members)
		}
	}
	if err := w.unknown(ctx, s.Node, address); err != nil {
		return err
	}
	r.Since = "the stranger was plugged in"
	return w.Recovered(ctx, o, r)
}

// unknown checks that no member has the stranger for one, or for a neighbour.
func (w *World) unknown(ctx context.Context, node, address string) error {
	nodes, err := w.Admin.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.ID == node {
			return fmt.Errorf("the stranger is a node: %+v", n)
		}
	}
	for _, m := range w.Members {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		for _, n := range s.Neighbours {
			if n.MAC == address || n.Node == node {
				return fmt.Errorf("the stranger is a neighbour of %s: %+v", m.Name(), n)
			}
		}
		if slices.ContainsFunc(s.Ports, func(p model.Port) bool { return slices.Contains(p.Members, node) }) {
			return fmt.Errorf("the stranger is a member on a port of %s: %+v", m.Name(), s.Ports)
		}
	}
	return nil
}
