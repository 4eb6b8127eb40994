package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"syscall"

	"halo.internal/lab/air"
	"halo.internal/lab/air/link"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/ether"
)

// Mesh says what carries the mesh between machines.
type Mesh string

// What may carry it.
const (
	ByAir   Mesh = "air"   // simulated radios
	ByCable Mesh = "cable" // a port to an Ethernet switch
	ByBoth  Mesh = "both"
)

func (m Mesh) byAir() bool   { return m == ByAir || m == ByBoth }
func (m Mesh) byCable() bool { return m == ByCable || m == ByBoth }

// MaxRadios of a machine.
const MaxRadios = 4

// Properties of all radios: those of a common Wi-Fi adapter.
const (
	radioPowerDBm = 20
	radioFigureDB = 7
)

// checkAir checks the options of the mesh and gives defaults to those that are
// not set.
func (o *Options) checkAir() error {
	if !o.Mesh.byAir() && !o.Mesh.byCable() {
		return fmt.Errorf("mesh: expected one of %s, %s, %s, got %q", ByAir, ByCable, ByBoth, o.Mesh)
	}
	o.Radios, o.SpacingM = cmp.Or(o.Radios, 1), cmp.Or(o.SpacingM, 50)
	if o.Profile.Name == "" {
		o.Profile = air.WiFi()
	}
	if o.Radios < 1 || o.Radios > MaxRadios {
		return fmt.Errorf("radios: expected 1 to %d, got %d", MaxRadios, o.Radios)
	}
	if !(o.SpacingM > 0 && o.SpacingM <= maxPlace) {
		return fmt.Errorf("spacing: expected up to %d m, got %g", maxPlace, o.SpacingM)
	}
	return nil
}

// radio is one of a machine's, whether it is on or not.
type radio struct {
	air.Radio
	wiphy string // its name in the machine
	on    bool   // the machine has made it
	out   bool   // it was unplugged
}

func (n *Network) openAir() {
	n.Air = air.New(n.opts.Profile, physics.Outdoors(), rand.Uint64())
	n.flying.Go(func() { n.Air.Carry(n.life) })
}

// newRadios adds the radios of a machine, off, at the machine's place in a grid;
// n.mu is held. The only one of a machine has its name.
func (n *Network) newRadios(machine string, number byte) (mine []*radio) {
	columns := int(math.Ceil(math.Sqrt(float64(n.opts.Nodes + 1))))
	place := physics.Position{X: float64(int(number)%columns) * n.opts.SpacingM, Y: float64(int(number)/columns) * n.opts.SpacingM}
	for i := range n.opts.Radios {
		r := &radio{wiphy: fmt.Sprintf("radio%d", i), Radio: air.Radio{
			Name: machine, Machine: machine, Position: place, PowerDBm: radioPowerDBm, FigureDB: radioFigureDB,
			Address: net.HardwareAddr{0x02, 'H', 'A', 'L', number, byte(i)},
		}}
		if n.opts.Radios > 1 {
			r.Name = fmt.Sprintf("%s.%d", machine, i+1)
		}
		mine = append(mine, r)
	}
	n.radios = append(n.radios, mine...)
	return mine
}

// presence is a start's taking part in the air.
type presence struct {
	leave context.CancelFunc
	gone  chan struct{}
}

// enter lets a machine that starts take part in the air, until it ends. Its
// radios appear when it has made them.
func (n *Network) enter(m *Machine, mine []*radio, conn net.Conn) error {
	if m.air != nil { // of the start before
		m.air.leave()
		<-m.air.gone
	}
	name := mine[0].Machine
	log := n.opts.Log.With("node", name)
	remote := link.NewRemote(conn, link.Notices{
		Made: func(wiphy string) {
			if err := n.appear(mine, wiphy); err != nil {
				log.Warn("radio", "err", err)
			}
		},
		Freed:  func(wiphy string) { n.happened(n.freed, name+" "+wiphy) },
		Killed: func(process string) { n.happened(n.killed, name+" "+process) },
	}, log)
	if err := n.furnish(name, remote, mine); err != nil {
		return errors.Join(err, remote.Close())
	}
	ctx, leave := context.WithCancel(n.life)
	m.air = &presence{leave, make(chan struct{})}
	gone := m.air.gone
	n.flying.Go(func() {
		defer close(gone)
		defer leave()
		err := n.Air.Attach(ctx, name, remote)
		n.vanish(name, remote, mine)
		if err != nil && !ended(err) {
			log.Warn("radios are dead", "err", err)
		}
	})
	return nil
}

// ended tells whether an error is no more than that a machine is off.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET)
}

func (n *Network) appear(mine []*radio, wiphy string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range mine {
		if r.wiphy == wiphy && !r.out {
			r.on = true
			return n.Air.Place(r.Radio)
		}
	}
	return nil
}

func (n *Network) vanish(machine string, remote *link.Remote, mine []*radio) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.remotes[machine] == remote {
		delete(n.remotes, machine)
		for key, c := range n.freed {
			if strings.HasPrefix(key, machine+" ") {
				delete(n.freed, key)
				close(c)
			}
		}
	}
	for _, r := range mine {
		r.on = false
		n.Air.Remove(r.Name)
	}
}

// ErrNoAir is wrapped where something is asked of an air that is not there.
var ErrNoAir = errors.New("there is no air: the machines mesh by cable alone")

// named returns the radios of that name: a machine's, one of them, or the
// rogue's; n.mu is held.
func (n *Network) named(name string) ([]string, error) {
	if n.Air == nil {
		return nil, ErrNoAir
	}
	if name == Rogue && n.rogue != nil {
		return []string{Rogue}, nil
	}
	var all, found []string
	for _, r := range n.radios {
		if all = append(all, r.Name); r.Name == name {
			found = []string{name}
		}
	}
	for _, m := range n.machines {
		if m.Name() == name {
			found = n.radiosOf(name)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no such radio or machine: expected one of %v, got %q", all, name)
	}
	return found, nil
}

func (n *Network) radiosOf(machine string) (names []string) {
	for _, r := range n.radios {
		if r.Machine == machine {
			names = append(names, r.Name)
		}
	}
	return names
}

// maxPlace bounds coordinates, in metres: half around the Earth.
const maxPlace = 20_000_000

func checkPlace(p physics.Position) error {
	for _, v := range []float64{p.X, p.Y, p.Z} {
		if !(math.Abs(v) <= maxPlace) {
			return fmt.Errorf("place: expected metres of at most ±%d, got %g", maxPlace, v)
		}
	}
	return nil
}

// Move gives a machine's radios, or one radio, another place.
func (n *Network) Move(name string, to physics.Position) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, err := n.named(name)
	if err == nil {
		err = checkPlace(to)
	}
	if err != nil {
		return err
	}
	if name == Rogue && n.rogue != nil {
		return n.Air.Move(Rogue, to)
	}
	for _, r := range n.radios {
		if !slices.Contains(names, r.Name) {
			continue
		}
		if r.Position = to; r.on {
			err = errors.Join(err, n.Air.Move(r.Name, to))
		}
	}
	return err
}

// between calls do with the radios of each direction between two machines or
// radios.
func (n *Network) between(a, b string, do func(from, to string)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	as, err := n.named(a)
	if err != nil {
		return err
	}
	bs, err := n.named(b)
	if err != nil {
		return err
	}
	for _, x := range as {
		if slices.Contains(bs, x) {
			return fmt.Errorf("expected two, got %s and %s, which have radio %s in common", a, b, x)
		}
	}
	for _, x := range as {
		for _, y := range bs {
			do(x, y)
			do(y, x)
		}
	}
	return nil
}

// Cut ends, or restores, what passes between two machines or radios through the
// air.
func (n *Network) Cut(a, b string, cut bool) error {
	return n.between(a, b, func(from, to string) { n.Air.Cut(from, to, cut) })
}

// Restore ends all cuts, but not a partition.
func (n *Network) Restore() error {
	if n.Air == nil {
		return ErrNoAir
	}
	n.Air.Restore()
	return nil
}

// SetLoss lets this share of the attempts between two be lost besides.
func (n *Network) SetLoss(a, b string, share float64) error {
	if !(share >= 0 && share <= 1) {
		return fmt.Errorf("loss: expected 0 to 1, got %g", share)
	}
	return n.between(a, b, func(from, to string) { n.Air.SetLoss(from, to, share) })
}

// SetDisorder lets management frames between two come twice or late, in both
// directions; see air.Disorder.
func (n *Network) SetDisorder(a, b string, d air.Disorder) error {
	if err := d.Check(); err != nil {
		return fmt.Errorf("disorder: %w", err)
	}
	var errs []error
	err := n.between(a, b, func(from, to string) { errs = append(errs, n.Air.SetDisorder(from, to, d)) })
	return errors.Join(append(errs, err)...)
}

// maxDB bounds powers and what is added to them.
const maxDB = 200

// Jam adds noise; see air.Jammer.
func (n *Network) Jam(j air.Jammer) error {
	if n.Air == nil {
		return ErrNoAir
	}
	if j.FreqMHz < 0 || j.FreqMHz > 10000 {
		return fmt.Errorf("jam: expected a channel of up to 10000 MHz, got %d", j.FreqMHz)
	}
	if j.At == nil && !(j.RaiseDB > 0 && j.RaiseDB <= maxDB) {
		return fmt.Errorf("jam: expected noise that is raised by up to %d dB, got %g", maxDB, j.RaiseDB)
	}
	if j.At != nil {
		if err := checkPlace(*j.At); err != nil {
			return fmt.Errorf("jam: %w", err)
		}
		if !(math.Abs(j.PowerDBm) <= maxDB) {
			return fmt.Errorf("jam: expected a power of at most ±%d dBm, got %g", maxDB, j.PowerDBm)
		}
	}
	n.Air.Jam(j)
	return nil
}

// Quiet takes the jammer of a channel away, or with 0 all.
func (n *Network) Quiet(freqMHz int) error {
	if n.Air == nil {
		return ErrNoAir
	}
	n.Air.Quiet(freqMHz)
	return nil
}

// Partition lets nothing pass, by cable and air, but within each group of
// machines. Machines in none are one group together.
func (n *Network) Partition(groups ...[]string) error {
	of := map[string]bool{}
	for _, g := range groups {
		for _, name := range g {
			if _, err := n.Machine(name); err != nil {
				return fmt.Errorf("partition: %w", err)
			}
			if of[name] {
				return fmt.Errorf("partition: %s is in two groups", name)
			}
			of[name] = true
		}
	}
	if n.opts.Mesh.byCable() {
		if err := n.Switch.Partition(groups...); err != nil {
			return err
		}
	}
	if n.Air == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var radios [][]string
	for _, g := range groups {
		var of []string
		for _, name := range g {
			of = append(of, n.radiosOf(name)...)
		}
		radios = append(radios, of)
	}
	n.Air.Partition(radios...)
	return nil
}

// ErrNoCable is returned where something is asked of a switch that is not there.
var ErrNoCable = errors.New("there are no cables: the machines mesh by air alone; halo-lab air acts on that")

// SetLink sets the condition of a machine's cable, or with b of the way between
// two.
func (n *Network) SetLink(a, b string, c ether.Condition) error {
	switch {
	case !n.opts.Mesh.byCable():
		return ErrNoCable
	case b == "":
		return n.Switch.SetLink(a, c)
	}
	return n.Switch.SetPair(a, b, c)
}

// Heal ends a partition.
func (n *Network) Heal() {
	n.Switch.Heal()
	if n.Air != nil {
		n.Air.Heal()
	}
}
