// Package wireless makes the radios of a device a transport of its mesh, as
// package port does with its Ethernet ports: it has the kernel keep to the
// country's rules, hands over to mesh/radio what the mesh profile says and the law
// lets each radio do, leaves radios alone that are in use otherwise, loads the
// driver of a board's HaLow radio and brings back drivers that hang, and tells
// people of all of it what they may want to know.
package wireless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/drivers"
	"halo.internal/drivers/halow"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/mesh/apart"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
)

// Kinds of events; those of radios and their peers are mesh/radio's.
const (
	EventCountry  = "mesh.radio.country"  // fields country, reason: the kernel has other rules
	EventFailed   = "mesh.radio.lost"     // field reason: no radio can be seen or used
	EventCaptured = "mesh.radio.captured" // fields radio, iface, frames
)

// Times.
const (
	retry       = 5 * time.Second  // cfg80211 comes with the first radio's driver, at any time
	countryWait = 10 * time.Second // the kernel asks the guard for its database
	scanWait    = 20 * time.Second // dozens of channels at a tenth of a second, and of the mesh's own time
)

// Config says what the radios are to be members of.
type Config struct {
	Country string      // ISO 3166; empty leaves the kernel's rules, at first those of the whole world
	Mesh    bundle.Mesh // until Change
	HaLow   string      // file with the settings of the board's HaLow radio; a board without one has no such file
	Suffix  [3]byte     // of the address of a HaLow radio whose chip has none: the node's own, not all zero
	Carrier radio.Carrier
	// Address says how a mesh interface is to be called; nil: as its driver does.
	Address func(own net.HardwareAddr) net.HardwareAddr
	// Fitted may change what a radio is to be, after the law has been asked: in the
	// lab, simulated radios stand for those of other drivers. nil: nothing is.
	Fitted func(*radio.Config)
	// Links tells which links other stations are known to have; nil: none is known.
	Links func() map[dot11.MAC][]dot11.MAC
	// Alone tells whether the device has no peer by any other way; nil: it has none.
	Alone func() bool
	// Routed tells the interfaces by which routing hears somebody; nil: it cannot be
	// asked.
	Routed func() (map[string]bool, error)
	// Found gets the members of a mesh of the same name that a lonely device has heard
	// on another channel than its own. Nobody proves a beacon: it is a hint to look
	// there, and no more. It must not block; nil: nobody wants to know.
	Found func(radio string, n model.RadioNetwork)
	// Strange gets what was said past the mesh, see radio.Config.
	Strange func(iface string, from dot11.MAC, payload []byte)
	// Notify gets what happens; boot, number and time are the receiver's to set. It
	// is called from several goroutines and must not block.
	Notify func(model.Event)
	Log    *slog.Logger
}

// kernel is what is asked of it besides what mesh/radio does, as nl80211.Conn
// answers.
type kernel interface {
	Wiphys() ([]nl80211.Wiphy, error)
	Interfaces() ([]nl80211.Interface, error)
	InterfacesOf(radio int) ([]nl80211.Interface, error)
	Stations(index int) ([]nl80211.StationInfo, error)
	Surveys(index int) ([]nl80211.Survey, error)
	Regulatory() (nl80211.Regulatory, error)
	WiphyRegulatory(index int) (nl80211.Regulatory, error)
	Close() error
}

var _ kernel = (*nl80211.Conn)(nil)

// open returns what the kernel has of interfaces, and a connection to ask it for more;
// nil where there is none, or where a radio hangs: who asks for all interfaces would wait
// for that one. Those who ask every other second have one kept for them by idled: to make
// one costs more than what they ask. One that is stuck in a driver is nobody else's
// meanwhile.
func (w *Wireless) open() (conn kernel, ifaces []nl80211.Interface) {
	if w.hung() != "" {
		return nil, nil
	}
	select {
	case conn = <-w.idle:
		if ifaces, err := conn.Interfaces(); err == nil {
			return conn, ifaces
		}
		_ = conn.Close() // the module may have been loaded anew
	default:
	}
	conn, err := w.dial()
	if err != nil {
		return nil, nil
	}
	ifaces, _ = conn.Interfaces() // the radios may be on their way out
	return conn, ifaces
}

// idled takes back what open returned.
func (w *Wireless) idled(conn kernel) {
	if conn == nil {
		return
	}
	select {
	case w.idle <- conn:
	default:
		_ = conn.Close()
	}
}

// radios is mesh/radio's.
type radios interface {
	Run(ctx context.Context) error
	List() []radio.State
	Again(wiphy int)
	Seek(wiphy int)
	Say(iface string, to dot11.MAC, payload []byte)
}

// Wireless is the radios of the device. Its methods may be called from any
// goroutine.
type Wireless struct {
	c Config

	// What tests replace.
	dial       func() (kernel, error)
	idle       chan kernel // a connection that nobody uses
	setCountry func(ctx context.Context, country string, wait time.Duration) error
	newRadios  func(radio.RadiosConfig) radios
	isUp       func(index int) bool
	scan       func(ctx context.Context, iface string, listen bool) ([]nl80211.BSS, error)
	capture    func(ctx context.Context, wiphy int, w io.Writer, length time.Duration, most int) (int, error)
	sysfs      func() ([]wifi.Radio, error)
	modules    func() (drivers.Modules, error)
	newHaLow   func() (halowDriver, error)
	newWiFi    func(name string, modules drivers.Modules) drivers.Radio
	giveBack   func(s seat, whole bool) error
	crashes    func(ctx context.Context, told func(device string)) error
	retry      time.Duration
	look       time.Duration
	again      time.Duration

	halowModule string // of Morse's driver

	healer
	left    *radio.Left             // what hangs in the kernel, also from an earlier run
	telling apart.Question[telling] // what the kernel says of radios, for status

	capturing sync.Mutex // held by the one capture

	mu     sync.Mutex // guards what follows
	radios radios     // nil while there is no cfg80211
	mesh   bundle.Mesh
	absent string // why there is no HaLow radio on a board that has one
	halow  halowDriver
	stale  error  // its radio is there with parameters that nobody knows
	loaded string // parameters with which this process has loaded its driver; empty: it is not, or nobody knows with which
	meter  *meter // of the HaLow radio; nil without a duty cycle
}

// New returns the radios; Run makes them work.
func New(c Config) *Wireless {
	w := &Wireless{
		c: c, mesh: c.Mesh.WithDefaults(), halowModule: halow.Module, retry: retry, look: look, again: againFirst, setCountry: radio.SetCountry, isUp: isUp, scan: radio.Scan, capture: radio.Capture, crashes: followCrashes, giveBack: giveBack,
		idle:      make(chan kernel, 1),
		left:      &radio.Left{},
		newRadios: func(c radio.RadiosConfig) radios { return radio.NewRadios(c) },
		dial:      func() (kernel, error) { return nl80211.Dial(nl80211.Config{}) },
		sysfs:     func() ([]wifi.Radio, error) { return wifi.Radios("") },
		modules:   loader,
		newWiFi: func(name string, modules drivers.Modules) drivers.Radio {
			return wifi.New(wifi.Config{Module: name, Modules: modules})
		},
	}
	w.newHaLow = w.readHaLow
	w.healer = newHealer(heal.DefaultLimits)
	return w
}

// Run has all radios be members of the mesh until ctx ends, whenever they are
// plugged in. A device without any is no failure, nor a kernel without cfg80211.
func (w *Wireless) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	defer func() {
		select {
		case conn := <-w.idle:
			_ = conn.Close()
		default:
		}
	}()
	w.tendNone()
	drive := func(d halowDriver) {
		if d == nil {
			return
		}
		stays := w.isStaying(ctx, d)
		if !stays {
			w.clear(ctx, d)
		}
		owned.Go(func() { w.driveHaLow(ctx, d, stays) })
		if m := w.meter; m != nil {
			owned.Go(func() { w.keepAirtime(ctx, m) })
		}
	}
	d, unread := w.setUpHaLow()
	drive(d)
	if unread {
		owned.Go(func() { drive(w.awaitHaLow(ctx)) })
	}
	owned.Go(func() { w.keepWell(ctx) })
	told := ""
	for {
		err := w.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			told = "" // the last radio's driver may have been unloaded
		case err != nil && err.Error() != told:
			told = err.Error()
			w.notify(EventFailed, model.Error, "the radios cannot be used, and it is tried again: "+told, "reason", told)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.retry):
		}
	}
}

func (w *Wireless) serve(ctx context.Context) error {
	if w.c.Country != "" {
		err := w.keepCountry(ctx)
		if errors.Is(err, radio.ErrCountry) {
			w.notify(EventCountry, model.Warning, fmt.Sprintf("the rules of %s do not hold: %v", w.c.Country, err), "country", w.c.Country, "reason", err.Error())
		} else if err != nil {
			return err
		}
	}
	rs := w.newRadios(radio.RadiosConfig{Member: w.member(), Carrier: w.c.Carrier, Use: w.use, Fit: w.fitted, Left: w.left})
	w.set(rs)
	defer w.set(nil)
	return rs.Run(ctx)
}

// keepCountry has the kernel keep to the country's rules. Where it hangs in that, the
// radios go by those that it has: no other country's (fit).
func (w *Wireless) keepCountry(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 2*countryWait)
	defer cancel()
	set := make(chan error, 1)
	if !w.apart(limited, "country", func() { set <- w.setCountry(limited, w.c.Country, countryWait) }) {
		return fmt.Errorf("%w: it has not answered within %s", radio.ErrCountry, 2*countryWait)
	}
	return <-set
}

func (w *Wireless) set(rs radios) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.radios = rs
}

// member is what the mesh profile makes of a radio.
func (w *Wireless) member() radio.Config {
	m := w.profile()
	c := radio.Config{
		MeshID: m.SSID, Password: m.PSK, Channel: channelOf(m), BeaconInterval: m.BeaconInterval,
		Address: w.c.Address, Links: w.c.Links, Strange: w.c.Strange, Notify: w.c.Notify, Log: w.c.Log,
	}
	switch m.MFP {
	case bundle.MFPOptional:
		c.MFP = peering.MFPOptional
	case bundle.MFPOff:
		c.MFP = peering.MFPOff
	default:
		c.MFP = peering.MFPRequired
	}
	if m.SAE == bundle.HuntingAndPecking {
		c.Method = sae.HuntingAndPecking
	}
	return c
}

// channelOf is the profile's channel.
func channelOf(m bundle.Mesh) nl80211.Channel {
	c := nl80211.Channel{FreqMHz: dot11.ChannelMHz(m.Channel), Width: nl80211.Width20}
	if m.Width == 40 {
		c.Width, c.Center1MHz = nl80211.Width40, dot11.Pair40(m.Channel)
	}
	return c
}

// use says why the mesh may not have a radio. What is idle does not hold it: a
// driver makes an interface with each radio, and leaves it down.
func (w *Wireless) use(r nl80211.Wiphy) error {
	conn, err := w.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	all, err := conn.InterfacesOf(r.Index) // no other radio is asked: it may hang
	if err != nil {
		return err
	}
	for _, i := range all {
		switch {
		case i.Wiphy != r.Index || i.Type == nl80211.Monitor:
		case i.Type == nl80211.MeshPoint && radio.Ours(i.Name): // left by an earlier process
		case i.Type == nl80211.AP:
			return fmt.Errorf("it is in use: %s is an access point on it", i.Name)
		case w.isUp(i.Index):
			return fmt.Errorf("it is in use: %s is up on it (%s)", i.Name, i.Type)
		}
	}
	return nil
}

// isUp tells whether somebody has brought an interface up.
func isUp(index int) bool {
	link, err := netlink.LinkByIndex(index)
	return err == nil && link.Attrs().RawFlags&unix.IFF_UP != 0
}

func (w *Wireless) notify(kind string, s model.Severity, message string, fields ...string) {
	f := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		f[fields[i]] = fields[i+1]
	}
	w.c.Notify(model.Event{Kind: kind, Severity: s, Message: message, Fields: f})
}
