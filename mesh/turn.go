package mesh

import (
	"context"
	"fmt"
	"hash/crc32"
	"time"

	"halo.internal/mesh/batman"
	"halo.internal/model/paths"
)

// known is for how long a node has to have been in contact with others until it
// may start again under the same addresses: the kernel's reset protection takes
// 30 s (see batman.Turns). And batman-adv numbers what is sent to all from one: of a
// device that had sent no more than 64 of them, the others take the first ones of its
// next life for those that they have had. In an hour a gateway announces itself 120
// times.
const known = time.Hour

// turnFile is what the file "turn" holds: under which turn the others got to know
// this device well, and at which start that was. It is written once in a start
// that lasts, and has no second copy: without it a start that follows the last
// one closely takes half a minute longer.
type turnFile struct {
	turn uint8
	boot uint64
}

func (f turnFile) marshal() []byte {
	s := fmt.Sprintf("%d %d", f.turn, f.boot)
	return fmt.Appendf(nil, "%s %08x\n", s, crc32.ChecksumIEEE([]byte(s)))
}

func parseTurn(b []byte) (f turnFile, err error) {
	var sum uint32
	if _, err := fmt.Sscanf(string(b), "%d %d %x\n", &f.turn, &f.boot, &sum); err != nil {
		return f, fmt.Errorf("turn: expected a turn, a boot counter and a checksum: %w", err)
	}
	if string(f.marshal()) != string(b) || f.turn >= batman.Turns {
		return f, fmt.Errorf("turn: expected one below %d with its checksum, got %q", batman.Turns, b)
	}
	return f, nil
}

// at returns the turn of a start: that of the last which lasted, and one more for
// each since that did not.
func (f turnFile) at(boot uint64) uint8 {
	if boot <= f.boot { // this start, or the counter was lost
		return f.turn
	}
	return uint8((uint64(f.turn) + boot - f.boot - 1) % batman.Turns)
}

// startTurn returns the turn of this start, and the file that it follows from.
func (m *core) startTurn() (uint8, turnFile) {
	var f turnFile
	_, err := m.store.Get(paths.Turn, "", func(b []byte) (err error) {
		f, err = parseTurn(b)
		return err
	})
	if err != nil {
		f = turnFile{}
	}
	return f.at(m.id.BootCounter), f
}

// keepTurn notes, once, that the others know this device by the addresses that it
// has.
func (m *core) keepTurn(ctx context.Context) error {
	turn, kept := m.startTurn()
	if kept.boot == m.id.BootCounter {
		return nil
	}
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		n, err := m.under.Originators()
		switch {
		case err != nil || n == 0:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= known:
			if _, err := m.store.Put(paths.Turn, "", turnFile{turn, m.id.BootCounter}.marshal()); err != nil {
				m.Log.Warn("addresses are not noted: a start that follows soon may take half a minute longer", "err", err)
			}
			return nil
		}
	}
}
