package ctl

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// air is who answers about a device, its radios and its services: the gateway of
// itself, or halo-mesh of a device.
type air interface {
	Health(context.Context) (health.Report, error)
	MeshStatus(context.Context) (model.MeshStatus, error)
	Peers(context.Context) ([]model.MeshPeer, error)
	Topology(context.Context) (model.MeshTopology, error)
	Channels(context.Context) ([]model.RadioChannels, error)
	Legal(context.Context) ([]model.Legality, error)
	Timeline(context.Context) ([]model.Recovery, error)
	Doctor(context.Context) (model.DoctorReport, error)
	Examine(context.Context) (model.DoctorReport, error)
	Scan(context.Context, model.ScanRequest) (model.RadioScan, error)
	Capture(context.Context, model.CaptureRequest, io.Writer) error
	Leases(context.Context) (map[string][]model.Lease, error)
	Reservations(context.Context) ([]model.Reservation, error)
	Reservation(ctx context.Context, mac string) (model.Reservation, error)
	PutReservation(context.Context, model.Reservation) error
	DeleteReservation(ctx context.Context, mac string) error
	Firewall(context.Context) (model.FirewallStatus, error)
	DNS(context.Context) (model.DNSStatus, error)
	Interfaces(context.Context) ([]model.InterfaceDetail, error)
	Wireless(context.Context) ([]model.Radio, error)
	Associations(context.Context) ([]apitype.Association, error)
	NeighbourTable(context.Context) ([]model.NeighbourEntry, error)
	Batman(ctx context.Context, table string) (model.BatmanTables, error)
	Support(context.Context, io.Writer) error
	Profile(context.Context) (model.MeshProfile, error)
	Channel(context.Context) (apitype.MeshChannel, error)
	Now() time.Time
}

var (
	_ air = (*client.Client)(nil)
	_ air = device{}
)

const meshLong = `Mesh shows the mesh and the radios as the gateway sees them, and has its radios
look around; with --node as another node sees them, with --local as the device
that haloctl runs on.`

func (a *app) meshCommand() *cobra.Command {
	g := group("mesh", "the mesh, its radios and who is in the air",
		a.meshStatusCommand(),
		a.askDevice("peers", "members that are reached directly, and links that do not come about", cobra.NoArgs, a.meshPeers),
		a.meshTopology(),
		a.askDevice("scan [RADIO]", "have a radio look which meshes and networks there are", cobra.MaximumNArgs(1), a.meshScan),
		a.askDevice("channels", "which channels the radios have, and may use", cobra.NoArgs, a.meshChannels),
		a.askDevice("legal", "what the law lets the radios do, and where that is known from", cobra.NoArgs, a.meshLegal),
		a.meshCapture(),
		a.meshRotateKey(),
		a.meshChannel(),
		a.meshProfile(),
		a.meshDoctor(),
		a.meshBatman(),
	)
	timeline := a.askDevice("timeline", "how each recovery went, stage by stage", cobra.NoArgs, a.meshTimeline)
	timeline.Long = timelineLong
	g.AddCommand(timeline)
	g.Long = meshLong
	return g
}

func (a *app) meshStatusCommand() *cobra.Command {
	var w watchFlags
	c := a.askDevice("status", "radios, ports and neighbours", cobra.NoArgs, func(ctx context.Context, from air, args []string) error {
		if w.on {
			return a.watchMesh(ctx, from, w.interval)
		}
		return a.meshStatus(ctx, from, args)
	})
	w.add(c, "go on and print it again when radios, ports or neighbours are others")
	return c
}

// watchMesh prints the status each time it is another, but for what is measured: that is
// another each time.
func (a *app) watchMesh(ctx context.Context, from air, interval time.Duration) error {
	var last []byte
	return a.again(ctx, interval, func() error {
		s, err := from.MeshStatus(ctx)
		if err != nil {
			return err
		}
		var page bytes.Buffer
		if err := writeMesh(&page, withoutFigures(s), nil); err != nil {
			return err
		}
		if bytes.Equal(page.Bytes(), last) {
			return nil
		}
		first := last == nil
		last = page.Bytes()
		if a.json {
			return lines(a.env.Stdout, []model.MeshStatus{s})
		}
		names, err := a.namesOf(ctx, from)
		if err != nil {
			return err
		}
		if !first {
			fmt.Fprintln(a.page(), "\nAt", stampOf(from.Now()))
		}
		return writeMesh(a.page(), s, names)
	})
}

// withoutFigures is a status without what is measured or counted all the time.
func withoutFigures(s model.MeshStatus) model.MeshStatus {
	s.Neighbours = slices.Clone(s.Neighbours)
	for i := range s.Neighbours {
		n := &s.Neighbours[i]
		n.LastSeenMS, n.TQ, n.Throughput = 0, 0, 0
	}
	s.Radios = slices.Clone(s.Radios)
	for i := range s.Radios {
		s.Radios[i].Dropped = model.Dropped{}
	}
	s.Ports = slices.Clone(s.Ports)
	for i := range s.Ports {
		if m := s.Ports[i].MACsec; m != nil {
			s.Ports[i].MACsec = &model.MACsec{State: m.State}
		}
	}
	return s
}

func (a *app) meshStatus(ctx context.Context, from air, _ []string) error {
	s, err := from.MeshStatus(ctx)
	if err != nil {
		return err
	}
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	return a.show(s, func(w io.Writer) error { return writeMesh(w, s, names) })
}

func writeMesh(w io.Writer, s model.MeshStatus, names map[string]string) error {
	t := table.New()
	t.Row("Mesh", s.Mesh)
	t.People("Node", fmt.Sprintf("%s (%s)", s.Name, s.Node))
	t.Programs("Node", s.Name)
	t.Programs("ID", s.Node)
	t.Row("Country", s.Country)
	t.Row("Nodes reachable", s.Originators)
	t.Row("Neighbours", len(s.Neighbours))
	radios := table.New(append(radioHeading, "LINKS", "STATE", "PEERS")...).Wide(len(radioHeading) + 2)
	for _, r := range s.Radios {
		links := table.Two(fmt.Sprintf("%d of %d", r.Linked(), len(r.Peers)), strconv.Itoa(r.Linked()))
		radios.Row(append(radioCells(r), links, radioState(r), len(r.Peers))...)
	}
	dropped := table.New("RADIO", "DROPPED SINCE IT JOINED", "FRAMES").Wide(2)
	drops := 0
	for _, r := range s.Radios {
		var words []string
		all := uint64(0)
		for _, d := range droppedOf(r.Dropped) {
			words = append(words, fmt.Sprintf("%d %s", d.n, d.what))
			all += d.n
			dropped.Programs(r.Name, d.what, d.n)
		}
		if all > 0 {
			dropped.People(r.Name, strings.Join(words, ", "), all)
			drops++
		}
	}
	healing, healed := healingTable(s.Radios)
	ports := table.New("PORT", "ROLE", "MEMBERS", "MACSEC", "KEY AGE", "DETAIL", "LATE", "INVALID").Wide(6)
	for _, p := range s.Ports {
		members := make([]string, len(p.Members))
		for i, m := range p.Members {
			members[i] = nameOf(names, m)
		}
		var late, invalid table.Cell
		if m := p.MACsec; m != nil {
			late, invalid = table.Of(m.Late), table.Of(m.Invalid)
		}
		ports.Row(p.Iface, p.Role, strings.Join(members, " "), describeMACsec(p.MACsec), keyAge(p.MACsec), p.Detail, late, invalid)
	}
	relayed := table.New("MULTICAST", "LISTENED TO HERE", "AND AT")
	groups := 0
	if s.Relay != nil {
		groups = len(s.Relay.Groups)
		for _, g := range s.Relay.Groups {
			there := make([]string, len(g.Members))
			for i, m := range g.Members {
				there[i] = nameOf(names, m)
			}
			relayed.Row(g.Group, g.Joined, strings.Join(there, " "))
		}
	}
	return writeTables(w, []section{{1, t}, {len(s.Radios), radios}, {drops, dropped}, {healed, healing}, {len(s.Ports), ports}, {groups, relayed}, {len(s.Neighbours), neighbours(s.Neighbours, names)}})
}

var radioHeading = []string{"RADIO", "INTERFACE", "MAC", "CHANNEL", "MHZ", "WIDTH", "COUNTRY", "POWER"}

// radioCells are those under radioHeading.
func radioCells(r model.Radio) []any {
	channel, freq, width, power := some(r.Channel), table.Value(float64(r.FreqMHz)), table.Value(float64(r.WidthMHz)), table.Cell{}
	if r.HaLow != "" { // what the kernel calls the channel stands for another
		channel, freq, width = r.HaLow, table.Value(float64(r.HaLowKHz)/1000), table.Value(float64(r.HaLowWide)/1000)
	}
	if r.FreqMHz == 0 {
		freq, width = table.Cell{}, table.Cell{}
	}
	if r.TxPowerDBm != 0 {
		power = table.In("dBm", "", r.TxPowerDBm)
	}
	return []any{r.Name, r.Iface, r.MAC, channel, freq, width, r.Country, power}
}

func radioState(r model.Radio) string {
	if r.Member {
		return "member"
	}
	return r.Detail
}

// healingTable is what was done to bring radios back, and of how many.
func healingTable(radios []model.Radio) (t *table.Table, rows int) {
	t = table.New("RADIO", "NOW", "SEARCHES", "SCANS", "RESTARTS", "REBINDS", "RELOADS", "WHY")
	for _, r := range radios {
		if h := r.Healing; h != nil {
			t.Row(r.Name, cmp.Or(h.Rung, "well"), h.Searches, h.Scans, h.Restarts, h.Rebinds, h.Reloads, h.Reason)
			rows++
		}
	}
	return t, rows
}

// describeMACsec says how a port's frames are protected.
func describeMACsec(m *model.MACsec) table.Cell {
	if m == nil {
		return table.Cell{}
	}
	text := m.State
	if m.Late > 0 {
		text += fmt.Sprintf(", %d late", m.Late)
	}
	if m.Invalid > 0 {
		text += fmt.Sprintf(", %d invalid", m.Invalid)
	}
	return table.Two(text, m.State)
}

// keyAge is how long a port's frames are encrypted under one key.
func keyAge(m *model.MACsec) table.Cell {
	if m == nil || m.State != "encrypted" && m.State != "mixed" {
		return table.Cell{}
	}
	return table.Span(time.Duration(m.KeyAgeS) * time.Second)
}

// dropped is so many frames of a kind that a radio heard in vain.
type dropped struct {
	n    uint64
	what string
}

// droppedOf leaves out what there was none of.
func droppedOf(d model.Dropped) (list []dropped) {
	for _, c := range []struct {
		n         uint64
		one, many string
	}{
		{d.SAEUnverified, "SAE Confirm of another password or forged", "SAE Confirms of another password or forged"},
		{d.SAEReplayed, "replayed SAE frame", "replayed SAE frames"},
		{d.SAEMismatched, "SAE Commit of another method or group", "SAE Commits of another method or group"},
		{d.SAEOverCapacity, "SAE Commit too many at once", "SAE Commits too many at once"},
		{d.PeeringUnverified, "unverified peering frame", "unverified peering frames"},
		{d.PeeringUnknownKey, "peering frame under an unknown key", "peering frames under an unknown key"},
		{d.PeeringReplayed, "replayed peering frame", "replayed peering frames"},
		{d.PeeringMismatched, "peering frame of another link", "peering frames of another link"},
		{d.CrowdedOut, "frame too fast to be worked on", "frames too fast to be worked on"},
		{d.Malformed, "malformed frame", "malformed frames"},
	} {
		switch c.n {
		case 0:
		case 1:
			list = append(list, dropped{1, c.one})
		default:
			list = append(list, dropped{c.n, c.many})
		}
	}
	return list
}

func (a *app) meshPeers(ctx context.Context, from air, _ []string) error {
	peers, err := from.Peers(ctx)
	if err != nil {
		return err
	}
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	return a.show(items[model.MeshPeer]{peers}, func(w io.Writer) error { return peerTable(peers, names, from.Now()).Write(w) })
}

func peerTable(peers []model.MeshPeer, names map[string]string, now time.Time) *table.Table {
	t := table.New("PEER", "INTERFACE", "MAC", "STATE", "SINCE", "SIGNAL", "HEARD", "TX RATE", "RX RATE", "TX", "RX", "QUALITY", "LAST FAILURE", "AGAIN IN", "FAILURES").Wide(14)
	for _, p := range peers {
		state := "proven"
		var since, signal, heard, txRate, rxRate, tx, rx, failure, again, failures table.Cell
		switch r := p.Radio; {
		case r != nil:
			state, heard = "linked", agoMS(r.InactiveMS)
			if !r.Linked {
				state = r.Peering + ", SAE " + r.SAE
			}
			if r.Since != nil {
				since = table.Age(now, *r.Since)
			}
			if r.SignalDBm != 0 {
				signal = dBm(r.SignalDBm)
			}
			if r.TxMbps != 0 || r.RxMbps != 0 {
				txRate, rxRate = table.In("Mbit/s", "", r.TxMbps), table.In("Mbit/s", "", r.RxMbps)
			}
			if r.Linked {
				tx, rx = table.Bytes(int64(r.TxBytes)), table.Bytes(int64(r.RxBytes))
			}
			if r.Failures > 0 {
				failure = table.Two(fmt.Sprintf("%s (%d times)", r.Reason, r.Failures), r.Reason)
			}
			failures = table.Of(r.Failures)
			if r.Full {
				failure = table.Of("it has peers enough")
			}
			if r.RetryMS > 0 {
				again = table.Span(millis(r.RetryMS))
			}
		case p.Transport == "radio":
			state = "routed" // batman-adv remembers it for some time
		}
		var routing table.Cell
		if n := p.Routing; n != nil {
			routing = quality(*n)
			if p.Radio == nil {
				heard = agoMS(n.LastSeenMS)
			}
		}
		t.Row(nameOf(names, p.Node), p.Iface, p.MAC, state, since, signal, heard, txRate, rxRate, tx, rx, routing, failure, again, failures)
	}
	return t
}

// dBm is a level as it is measured: to whole ones.
func dBm(level float64) table.Cell { return table.In("dBm", "%.0f", level) }

// radioOf is the radio that a command's argument names; none is the only one.
func radioOf(args []string) string { return strings.Join(args, "") }

func (a *app) meshScan(ctx context.Context, from air, args []string) error {
	s, err := from.Scan(ctx, model.ScanRequest{Radio: radioOf(args)})
	if err != nil {
		return notFound(err, "haloctl mesh status shows the radios")
	}
	return a.show(s, func(w io.Writer) error { return writeScan(w, s) })
}

func writeScan(w io.Writer, s model.RadioScan) error {
	t := table.New("NAME", "KIND", "BSSID", "CHANNEL", "MHZ", "SIGNAL", "SECURED", "HEARD")
	for _, n := range s.Networks {
		kind := n.Kind
		if n.Own {
			kind = "our mesh"
		}
		t.Row(n.Name, kind, n.BSSID, heardOn(n), n.FreqMHz, dBm(n.SignalDBm), n.Secured, agoMS(n.SeenMS))
	}
	return t.Write(w)
}

// heardOn is the channel of a network: below 1 GHz those that it may be on.
func heardOn(n model.RadioNetwork) string {
	if len(n.S1G) == 0 {
		return some(n.Channel)
	}
	var list []string
	for _, number := range n.S1G {
		list = append(list, strconv.Itoa(number))
	}
	return "S1G " + strings.Join(list, " or ")
}

func (a *app) meshChannels(ctx context.Context, from air, _ []string) error {
	list, err := from.Channels(ctx)
	if err != nil {
		return err
	}
	return a.show(items[model.RadioChannels]{list}, func(w io.Writer) error {
		t := table.New("RADIO", "COUNTRY", "CHANNEL", "MHZ", "POWER", "MESH", "FLAGS", "NOISE", "BUSY", "WHY NOT")
		for _, r := range list {
			for _, c := range r.Channels {
				use := "no"
				var power, noise, busy table.Cell
				switch {
				case c.InUse:
					use = "in use"
				case c.Usable:
					use = "yes"
				}
				if c.MaxPowerDBm != 0 && !strings.Contains(strings.Join(c.Flags, " "), "disabled") {
					power = table.In("dBm", "", c.MaxPowerDBm)
				}
				if c.NoiseDBm != 0 {
					noise = dBm(float64(c.NoiseDBm))
				}
				if c.BusyPercent != 0 {
					busy = table.In("%", "%.0f", c.BusyPercent)
				}
				t.Row(r.Radio, r.Country, some(c.Channel), c.FreqMHz, power, use, strings.Join(c.Flags, " "), noise, busy, c.Why)
			}
		}
		return t.Write(w)
	})
}

func (a *app) meshLegal(ctx context.Context, from air, _ []string) error {
	list, err := from.Legal(ctx)
	if err != nil {
		return err
	}
	return a.show(items[model.Legality]{list}, func(w io.Writer) error {
		var tables []section
		for _, l := range list {
			t := table.New()
			verdict := "allowed"
			if !l.Allowed {
				verdict = "not allowed"
			}
			name := l.Radio
			if name == "" {
				name = "HaLow"
			}
			t.Row("Radio", name)
			t.Row("Channel", l.Channel)
			t.Row("Verdict", verdict)
			t.Row("Country", l.Country)
			if l.MaxEIRPDBm != 0 {
				t.Row("EIRP at most", table.In("dBm", "", l.MaxEIRPDBm))
				t.Row("Width at most", table.In("MHz", "", l.MaxWidthMHz))
			}
			duty := table.Two("no limit", "")
			if l.DutyCyclePct != 0 {
				duty = table.In("% of an hour", "", l.DutyCyclePct)
			}
			if l.Allowed {
				t.Row("Duty cycle", duty)
			}
			if l.AirtimeMaxS != 0 {
				t.Row("Airtime of an hour", secondsOf(l.AirtimeS))
				t.Row("Airtime at most", secondsOf(l.AirtimeMaxS))
			}
			for _, r := range l.Reasons {
				t.Row("Reason", r)
			}
			tables = append(tables, section{1, t})
		}
		return writeTables(w, tables)
	})
}

func (a *app) meshCapture() *cobra.Command {
	var out string
	var length time.Duration
	var most int
	c := a.askDevice("capture [RADIO]", "record what a radio hears and sends, as a pcap with radiotap headers", cobra.MaximumNArgs(1), func(ctx context.Context, from air, args []string) error {
		switch {
		case out == "":
			return &usageError{errors.New("--out: expected a file for the capture, or - for standard output")}
		case length < time.Second || length > model.CaptureMaxSeconds*time.Second || length%time.Second != 0:
			return &usageError{fmt.Errorf("--for: expected whole seconds, 1s to %ds, got %s", model.CaptureMaxSeconds, length)}
		case most < 1024 || most > model.CaptureMaxBytes:
			return &usageError{fmt.Errorf("--bytes: expected 1024 to %d, got %d", model.CaptureMaxBytes, most)}
		}
		var file bytes.Buffer
		if err := from.Capture(ctx, model.CaptureRequest{Radio: radioOf(args), Seconds: int(length / time.Second), Bytes: most}, &file); err != nil {
			return notFound(err, "haloctl mesh status shows the radios")
		}
		if out == "-" {
			_, err := a.env.Stdout.Write(file.Bytes())
			return err
		}
		if err := atomicfile.Write(out, file.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(a.env.Stderr, "Wrote %s: %s.\n", out, table.Bytes(int64(file.Len())))
		return nil
	})
	c.Long = `Capture records frames on the channel where the radio is, until the time is over
or the file is full, and writes them to a file for Wireshark or tcpdump.

What it holds is mostly encrypted, but tells who speaks with whom: only an admin
may ask for it, and an event says that it was done.`
	c.Flags().StringVar(&out, "out", "", "`file` to write, readable by you alone; - for standard output")
	c.Flags().DurationVar(&length, "for", model.CaptureSeconds*time.Second, "how long, at most a minute")
	c.Flags().IntVar(&most, "bytes", model.CaptureBytes, "size of the file, at most 8 MiB")
	return c
}
