package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/agent/collect"
	"halo.internal/hal/gps"
	"halo.internal/hal/gps/gpsd"
	"halo.internal/hal/uevent"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
	"halo.internal/model/wire"
)

// GPS are the settings of the receiver.
type GPS struct {
	Port   string  `toml:"port,omitempty"`  // device file, where none on USB is to be looked for; "off": none at all
	Rate   int     `toml:"rate,omitempty"`  // bit/s; 0: found by listening
	Share  string  `toml:"share,omitempty"` // who hears the receiver in gpsd's protocol: clients (and this device), device, nobody
	Static *Static `toml:"static,omitempty"`
}

// Static is where the device was put.
type Static struct {
	Lat float64  `toml:"lat"` // degrees north
	Lon float64  `toml:"lon"` // degrees east
	Alt *float64 `toml:"alt_m,omitempty"`
}

// Values of GPS.
const (
	gpsOff       = "off"
	shareClients = "clients"
	shareDevice  = "device"
	shareNobody  = "nobody"
)

func (g GPS) check() error {
	var errs []error
	if g.Port != "" && g.Port != gpsOff && (!strings.HasPrefix(g.Port, "/dev/") || filepath.Clean(g.Port) != g.Port) {
		errs = append(errs, fmt.Errorf("gps.port: expected a device file such as /dev/ttyAMA0, or off, got %q", g.Port))
	}
	if g.Rate != 0 && (g.Rate < 300 || g.Rate > 4_000_000) {
		errs = append(errs, fmt.Errorf("gps.rate: expected 300 to 4000000 bit/s, or 0, got %d", g.Rate))
	}
	switch g.Share {
	case "", shareClients, shareDevice, shareNobody:
	default:
		errs = append(errs, fmt.Errorf("gps.share: expected clients, device or nobody, got %q", g.Share))
	}
	if s := g.Static; s != nil && !s.position().Valid() {
		errs = append(errs, fmt.Errorf("gps.static: expected lat of -90 to 90, lon of -180 to 180 and a height of this Earth, got %v, %v", s.Lat, s.Lon))
	}
	return errors.Join(errs...)
}

func (s Static) position() model.Position {
	return model.Position{Source: model.PositionStatic, Lat: s.Lat, Lon: s.Lon, AltM: s.Alt}
}

// Events about the receiver.
const (
	eventReceiverFound = "gps.receiver.found"
	eventReceiverGone  = "gps.receiver.gone"
	eventFixGained     = "gps.fix.gained"
	eventFixLost       = "gps.fix.lost"
)

const (
	// lostAfter is how long a fix is missed before that is news; it doubles with each loss,
	// up to lostMost, so that a device below trees does not fill the log, and begins anew
	// after a day with a fix.
	lostAfter = 30 * time.Second
	lostMost  = 30 * time.Minute
	// freshFor is how long a fix is where the device is.
	freshFor = 15 * time.Second
	// offerEvery is how often halo-mesh is told the time.
	offerEvery = 64 * time.Second
	// repeatEvery is how often programs are told the static position.
	repeatEvery = 10 * time.Second
	maxUntold   = 16 // events, before there is a spool to take them
)

// whereabouts is the device's receiver: it is followed, shared with local programs, told of
// as telemetry and events, and halo-mesh has the time of it. It is a collector, which never
// waits.
type whereabouts struct {
	*gpsd.Server
	settings GPS
	receiver *gps.Receiver
	agent    *agent
	log      *slog.Logger
	changed  chan struct{}

	mu     sync.Mutex // guards what follows
	good   gps.Fix    // the last one with a position; its Mode is 0 before
	device gps.Device // the last one that was told of
	gone   time.Time  // since when there is none; zero: there is, or never was
	fixed  bool       // what events say last
	gained time.Time
	loss   time.Duration // what lostAfter has become
	untold []event
}

type event struct {
	kind, message string
	severity      model.Severity
	fields        map[string]string
}

func newWhereabouts(a *agent) *whereabouts {
	w := &whereabouts{Server: gpsd.New(a.Log), agent: a, log: a.Log, changed: make(chan struct{}, 1), loss: lostAfter}
	if a.settings.GPS != nil {
		w.settings = *a.settings.GPS
	}
	if s := w.settings.Static; s != nil {
		p := gpsd.Static{Lat: s.Lat, Lon: s.Lon, Alt: math.NaN()}
		if s.Alt != nil {
			p.Alt = *s.Alt
		}
		w.Place(&p)
	}
	built := version.Get().Built
	c := gps.Config{Root: filepath.Join("/", a.Root), Rate: w.settings.Rate, Earliest: built, Latest: built.AddDate(model.ClockLifespan, 0, 0), Changed: w.changed, Listener: w}
	if w.settings.Port != "" {
		c.Ports, c.Only = []string{w.settings.Port}, true
	} else {
		c.Ports = freePorts(a.hardware.board())
	}
	w.receiver = gps.New(c)
	return w
}

// freePorts are the names of the board's own ports that are for nothing else.
func freePorts(b model.Board) []string {
	var names []string
	for _, p := range b.Serial {
		if p.Taken == "" {
			names = append(names, p.Device)
		}
	}
	return names
}

func (w *whereabouts) off() bool { return w.settings.Port == gpsOff }

// run follows the receiver until ctx ends. What fails is tried again: nothing else of the
// agent stops for it.
func (w *whereabouts) run(ctx context.Context) {
	var g errgroup.Group
	if !w.off() {
		g.Go(func() error { w.receiver.Run(ctx); return nil })
		g.Go(func() error { w.watchPorts(ctx); return nil })
		g.Go(func() error { w.tellTime(ctx); return nil })
	}
	for _, addr := range w.addresses() {
		g.Go(func() error { w.share(ctx, addr); return nil })
	}
	every(ctx, time.Second, func() bool { w.look(time.Now()); return false })
	_ = g.Wait() // none of them has an error
}

// watchPorts has the receiver look for ports when the kernel says that some came or went. A
// socket that can't be had only makes it later: ports are looked at now and then anyway.
func (w *whereabouts) watchPorts(ctx context.Context) {
	failed := false
	every(ctx, repeatEvery, func() bool {
		l, err := uevent.Listen()
		if err != nil {
			if !failed {
				w.log.Warn("serial ports that are plugged in are seen late", "err", err)
			}
			failed = true
			return false
		}
		defer l.Close() // nothing is written to it
		failed = false
		for ctx.Err() == nil {
			e, err := l.Next(ctx)
			if err != nil && !errors.Is(err, uevent.ErrLost) {
				return false
			}
			if s := e["SUBSYSTEM"]; err != nil || s == "tty" || s == "pps" {
				select {
				case w.changed <- struct{}{}:
				default: // it is going to look
				}
			}
		}
		return false
	})
}

// tellTime hands the receiver's time to halo-mesh, at once when it is first believed.
func (w *whereabouts) tellTime(ctx context.Context) {
	var last time.Time // when halo-mesh took it
	refused := ""
	every(ctx, time.Second, func() bool {
		t := w.receiver.State().Told
		if t.Time.IsZero() || time.Since(t.At) > freshFor/3 || !last.IsZero() && time.Since(last) < offerEvery {
			return false
		}
		err := w.agent.mesh.GPSTime(ctx, model.GPSTime{
			Time: t.Time.UTC(), BootNS: int64(bootTime() - time.Since(t.At)), AccuracyMS: max(1, t.Accuracy.Milliseconds()), Pulse: t.Pulse,
		})
		if err == nil || errors.Is(err, local.ErrInvalid) { // what was refused is not asked again at once
			last = time.Now()
		}
		text := ""
		if errors.Is(err, local.ErrInvalid) {
			text = "refused"
		}
		if text != refused && ctx.Err() == nil {
			if refused = text; text != "" {
				w.log.Warn("halo-mesh does not take the receiver's time", "err", err)
			} else {
				w.log.Info("halo-mesh takes the receiver's time again")
			}
		}
		return false
	})
}

// addresses are those at which the receiver is shared.
func (w *whereabouts) addresses() []string {
	if w.settings.Share == shareNobody || w.off() && w.settings.Static == nil {
		return nil
	}
	if w.settings.Share != shareDevice {
		return w.agent.GPSD
	}
	var list []string
	for _, a := range w.agent.GPSD {
		if _, port, err := net.SplitHostPort(a); err == nil {
			list = append(list, net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port))
		}
	}
	return list
}

// share serves programs, and tries again where the port can't be had.
func (w *whereabouts) share(ctx context.Context, addr string) {
	told := false
	every(ctx, 2*time.Second, func() bool {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err == nil {
			told = false
			err = w.Serve(ctx, l, w.meant)
		}
		if err != nil && ctx.Err() == nil && !told {
			w.log.Warn("the GPS receiver is not shared with programs", "address", addr, "err", err)
			told = true
		}
		return false
	})
}

// meant tells whether a connection is one that the receiver is shared with: of the device
// itself, or of a client to the device's address among clients. The firewall says so too.
func (w *whereabouts) meant(here, there netip.AddrPort) bool {
	if here.Addr().IsLoopback() && there.Addr().IsLoopback() {
		return true
	}
	if w.settings.Share == shareDevice {
		return false
	}
	bridge, err := net.InterfaceByName(paths.ClientBridge)
	if err != nil {
		return false
	}
	addrs, err := bridge.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(here.Addr().AsSlice()) && n.Contains(there.Addr().WithZone("").AsSlice()) {
			return true
		}
	}
	return false
}

// Found tells of a receiver.
func (w *whereabouts) Found(d gps.Device) {
	w.Server.Found(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = time.Time{}
	if d.Place == w.device.Place { // it comes and goes: once is enough
		return
	}
	w.device = d
	w.tell(eventReceiverFound, model.Info, "a GPS receiver is there", map[string]string{"device": d.Path, "place": d.Place, "model": d.Model, "rate": fmt.Sprint(d.Rate)})
}

// Gone tells that it is gone.
func (w *whereabouts) Gone(d gps.Device, why error) {
	w.Server.Gone(d, why)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = time.Now()
}

// Fix takes one.
func (w *whereabouts) Fix(f gps.Fix, s gps.Sky, reason gps.Reason) {
	w.Server.Fix(f, s, reason)
	if f.Mode == gps.NoFix {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.good = f
	if !w.fixed {
		w.fixed, w.gained = true, time.Now()
		w.tell(eventFixGained, model.Info, "the GPS receiver knows where this device is", map[string]string{"used": fmt.Sprint(f.Used), "accuracy_m": fmt.Sprintf("%.0f", or(f.Accuracy, 0))})
	}
}

// look sees what has ended, and what can be told now.
func (w *whereabouts) look(now time.Time) {
	st := w.receiver.State()
	w.mu.Lock()
	if w.device != (gps.Device{}) && !w.gone.IsZero() && now.Sub(w.gone) > lostAfter {
		w.tell(eventReceiverGone, model.Warning, "the GPS receiver is gone", map[string]string{"device": w.device.Path, "place": w.device.Place, "detail": st.Trouble})
		w.device = gps.Device{}
	}
	if w.fixed && now.Sub(w.gained) > 24*time.Hour {
		w.loss = lostAfter
	}
	if w.fixed && now.Sub(w.good.At) > w.loss {
		w.fixed, w.loss = false, min(2*w.loss, lostMost)
		why := st.Why
		if now.Sub(st.WhyAt) > w.loss {
			why = ""
		}
		w.tell(eventFixLost, model.Warning, "the GPS receiver does not know where this device is any more", map[string]string{"device": w.device.Path, "reason": why})
	}
	untold := w.untold
	spool := w.agent.seen.spoolNow()
	if spool != nil {
		w.untold = nil
	}
	w.mu.Unlock()
	if spool != nil {
		for _, e := range untold {
			if err := spool.AddEvent(e.kind, e.severity, e.message, e.fields); err != nil {
				w.log.Warn("event is lost", "kind", e.kind, "err", err)
			}
		}
	}
	if now.Second()%int(repeatEvery/time.Second) == 0 {
		w.Repeat()
	}
}

// tell keeps an event until there is a spool. mu is held.
func (w *whereabouts) tell(kind string, s model.Severity, message string, fields map[string]string) {
	for k, v := range fields {
		if v == "" {
			delete(fields, k)
		}
	}
	if len(w.untold) < maxUntold {
		w.untold = append(w.untold, event{kind, message, s, fields})
	}
}

// fresh is the fix that says where the device is now.
func (w *whereabouts) fresh() (gps.Fix, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.good, w.good.Mode != 0 && time.Since(w.good.At) < freshFor
}

// position is where the device is; nil: nobody knows.
func (w *whereabouts) position() *model.Position {
	if f, ok := w.fresh(); ok {
		p := &model.Position{Source: model.PositionGPS, Lat: places(f.Lat, 7), Lon: places(f.Lon, 7), AltM: known(f.Alt, 1), AccuracyM: places(or(f.Accuracy, 0), 1), Time: time.Now().Add(-time.Since(f.At)).UTC().Truncate(time.Millisecond)}
		return p
	}
	if s := w.settings.Static; s != nil {
		p := s.position()
		return &p
	}
	return nil
}

// status is all that is known of the receiver.
func (w *whereabouts) status() *model.GPSStatus {
	s := &model.GPSStatus{State: model.GPSOff, Position: w.position(), Shared: w.settings.Share, Sharing: w.Stats().Clients}
	if s.Shared == "" {
		s.Shared = shareClients
	}
	if w.off() {
		return s
	}
	st := w.receiver.State()
	s.Device, s.Model, s.Rate = st.Device.Path, st.Device.Model, st.Device.Rate
	s.Sentences, s.Damaged, s.Noise = st.Lines.Sentences, st.Lines.Damaged+st.Bad, st.Lines.Noise
	s.PPS, s.Searched = st.PPS, st.Searched
	for r, n := range st.Dropped {
		if s.Dropped == nil {
			s.Dropped = map[string]uint64{}
		}
		s.Dropped[string(r)] = n
	}
	if s.Device == "" {
		s.State, s.Detail = model.GPSSearching, st.Trouble
		return s
	}
	f := st.Fix
	s.State = model.GPSNoFix
	if !st.WhyAt.IsZero() && time.Since(st.WhyAt) < time.Minute {
		s.Detail = st.Why
	}
	s.Used, s.Seen, s.Time, s.HDOP = f.Used, f.Seen, f.Time.UTC(), or(f.HDOP, 0)
	if f.Time.IsZero() {
		s.Time = time.Time{}
	}
	switch f.Mode {
	case gps.Fix2D:
		s.State = model.GPSFix2D
	case gps.Fix3D:
		s.State = model.GPSFix3D
	default:
		return s
	}
	s.Quality, s.AccuracyBy = string(f.Quality), string(f.AccuracySource)
	s.SpeedMPS, s.TrackDeg = places(or(f.Speed, 0), 2), known(f.Track, 1)
	return s
}

// Name is the collector's.
func (w *whereabouts) Name() string { return "gps" }

// slow is below what speed, in m/s, a track is noise.
const slow = 0.5

// Collect returns what is known already: metrics are the same as long as there is a
// receiver, or a position that was set, and what is not known of them has no value.
func (w *whereabouts) Collect(context.Context) ([]collect.Reading, error) {
	st := w.receiver.State()
	static := w.settings.Static
	there := st.Device.Path != ""
	if !there && static == nil {
		return nil, nil
	}
	f, ok := w.fresh()
	lat, lon, alt := math.NaN(), math.NaN(), math.NaN()
	switch {
	case ok:
		lat, lon, alt = f.Lat, f.Lon, f.Alt
	case static != nil:
		lat, lon = static.Lat, static.Lon
		if static.Alt != nil {
			alt = *static.Alt
		}
	}
	out := []collect.Reading{
		decimal("gps.fix.lat_deg", "deg", 6, lat), decimal("gps.fix.lon_deg", "deg", 6, lon), decimal("gps.fix.alt_m", "m", 1, alt),
	}
	if !there {
		return out, nil
	}
	speed, track, accuracy, hdop, mode := math.NaN(), math.NaN(), math.NaN(), math.NaN(), 0.0
	if ok {
		speed, accuracy, hdop, mode = f.Speed, f.Accuracy, f.HDOP, float64(f.Mode)
		if f.Speed >= slow {
			track = f.Track
		}
	}
	dropped := uint64(0)
	for _, n := range st.Dropped {
		dropped += n
	}
	return append(out,
		decimal("gps.fix.accuracy_m", "m", 1, accuracy), decimal("gps.fix.speed_mps", "m/s", 2, speed), decimal("gps.fix.track_deg", "deg", 0, track),
		decimal("gps.fix.hdop", "", 2, hdop), decimal("gps.fix.mode", "", 0, mode),
		decimal("gps.satellites.used", "", 0, float64(st.Fix.Used)), decimal("gps.satellites.seen", "", 0, float64(st.Fix.Seen)),
		decimal("gps.receiver.dropped", "", 0, float64(dropped)), decimal("gps.receiver.damaged", "", 0, float64(st.Lines.Damaged+st.Bad)),
	), nil
}

// decimal is a reading with so many decimal places; not a number: it has no value.
func decimal(name, unit string, scale int8, v float64) collect.Reading {
	r := collect.Reading{Metric: wire.NewMetric(name, unit, scale)}
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		r.Value = wire.Int(int64(math.Round(v * math.Pow10(int(scale)))))
	}
	return r
}

func or(v, otherwise float64) float64 {
	if math.IsNaN(v) {
		return otherwise
	}
	return v
}

func places(v float64, n int) float64 { return math.Round(v*math.Pow10(n)) / math.Pow10(n) }

func known(v float64, n int) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	p := places(v, n)
	return &p
}
