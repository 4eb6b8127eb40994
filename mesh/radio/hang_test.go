package radio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/apart"
	"halo.internal/model"
)

// chips is a kernel with radios, any of which may hang: then no call for it comes back.
type chips struct {
	mu     sync.Mutex // guards what follows
	radios []nl80211.Wiphy
	ifaces map[int]nl80211.Interface
	next   int
	hangs  map[int]*hang // by wiphy
	calls  []call
	ears   []*ears
	events []model.Event
	inBat  []string
}

// hang is of a radio that does not come back.
type hang struct {
	at    string // the call with which it begins; empty: any
	stuck int    // calls that have not come back
	back  chan struct{}
}

// call is one that has come into the kernel.
type call struct {
	conn  *chipConn
	what  string
	wiphy int
}

func newChips(radios int) *chips {
	k := &chips{ifaces: map[int]nl80211.Interface{}, hangs: map[int]*hang{}, next: 10}
	frames := map[nl80211.InterfaceType][]uint16{nl80211.MeshPoint: {nl80211.FrameAuthentication, nl80211.FrameAction}}
	for i := range radios {
		k.radios = append(k.radios, nl80211.Wiphy{
			Index: i, Name: fmt.Sprintf("phy%d", i), InterfaceTypes: []nl80211.InterfaceType{nl80211.MeshPoint},
			Commands: []uint8{unix.NL80211_CMD_JOIN_MESH}, Ciphers: []nl80211.Cipher{nl80211.CCMP, nl80211.BIP},
			Features: unix.NL80211_FEATURE_USERSPACE_MPM, MeshAuth: true, PeerGroupKeys: true, SendFrames: frames, RegisterFrames: frames,
			Bands: []nl80211.Band{{Rates: []int{10, 20, 55, 60, 110, 120, 240}, Channels: []nl80211.Allowed{{FreqMHz: 2412}}}},
		})
	}
	return k
}

// hang has a radio hang from that call on, or from the next; back lets it come back.
func (k *chips) hang(wiphy int, at string) (h *hang, back func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h = &hang{at: at, back: make(chan struct{})}
	k.hangs[wiphy] = h
	return h, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.hangs, wiphy)
		close(h.back)
	}
}

func (k *chips) isStuck(h *hang) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return h.stuck
}

// since returns the calls from a place on, and the place behind them.
func (k *chips) since(place int) ([]call, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.calls[place:]), len(k.calls)
}

func (k *chips) notify(e model.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, e)
}

func (k *chips) told(kind string) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// Enslave is bat0's.
func (k *chips) Enslave(iface string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inBat = append(k.inBat, iface)
	return nil
}

// unplug takes a radio away.
func (k *chips) unplug(wiphy int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.radios = slices.DeleteFunc(k.radios, func(w nl80211.Wiphy) bool { return w.Index == wiphy })
	for _, e := range k.ears {
		select {
		case e.in <- nl80211.WiphyRemoved{Index: wiphy}:
		default:
		}
	}
}

func (k *chips) machine() machine {
	return machine{
		dial: func() (kernel, error) { return &chipConn{k: k}, nil },
		listen: func(int, ...string) (listener, error) {
			e := &ears{in: make(chan nl80211.Event, 8), ended: make(chan struct{})}
			k.mu.Lock()
			defer k.mu.Unlock()
			k.ears = append(k.ears, e)
			return e, nil
		},
		index: func(name string) (int, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			for index, i := range k.ifaces {
				if i.Name == name {
					return index, nil
				}
			}
			return 0, nil
		},
		raise: func(r *Radio) error { return r.conn.(*chipConn).enter("raise", r.c.Wiphy) },
	}
}

// radiosOf returns the radios of the machine, which have left in common.
func (k *chips) radiosOf(left *Left, use func(nl80211.Wiphy) error) *Radios {
	rs := NewRadios(RadiosConfig{
		Member: Config{
			MeshID: "valley", Password: "a password of the test", Channel: nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20},
			Notify: k.notify, Log: slog.New(slog.DiscardHandler),
		},
		Carrier: k, Use: use, Left: left,
	})
	rs.sys = k.machine()
	return rs
}

// chipConn is a connection to chips.
type chipConn struct {
	k    *chips
	left atomic.Bool
}

// enter is a call's way through the kernel. It takes effect also when it comes back late.
func (c *chipConn) enter(what string, wiphy int) error {
	if c.left.Load() {
		return net.ErrClosed
	}
	c.k.mu.Lock()
	c.k.calls = append(c.k.calls, call{c, what, wiphy})
	h := c.k.hangs[wiphy]
	if h != nil && (h.at == "" || h.at == what) {
		h.at = "" // it holds the radio's lock
		h.stuck++
	} else {
		h = nil
	}
	c.k.mu.Unlock()
	if h != nil {
		<-h.back
	}
	return nil
}

// of is enter for an interface.
func (c *chipConn) of(what string, index int) error {
	c.k.mu.Lock()
	i, ok := c.k.ifaces[index]
	c.k.mu.Unlock()
	if !ok {
		return unix.ENODEV
	}
	return c.enter(what, i.Wiphy)
}

func (c *chipConn) Abandon()     { c.left.Store(true) }
func (c *chipConn) Close() error { return nil }

func (c *chipConn) Wiphys() ([]nl80211.Wiphy, error) {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	return slices.Clone(c.k.radios), nil
}

func (c *chipConn) Wiphy(index int) (nl80211.Wiphy, error) {
	if err := c.enter("Wiphy", index); err != nil {
		return nl80211.Wiphy{}, err
	}
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	i := slices.IndexFunc(c.k.radios, func(w nl80211.Wiphy) bool { return w.Index == index })
	if i < 0 {
		return nl80211.Wiphy{}, unix.ENODEV
	}
	return c.k.radios[i], nil
}

func (c *chipConn) InterfacesOf(radio int) (all []nl80211.Interface, err error) {
	err = c.enter("InterfacesOf", radio)
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	for _, i := range c.k.ifaces {
		if i.Wiphy == radio {
			all = append(all, i)
		}
	}
	return all, err
}

func (c *chipConn) Interface(index int) (nl80211.Interface, error) {
	err := c.of("Interface", index)
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	return c.k.ifaces[index], err
}

func (c *chipConn) NewInterface(radio int, name string, t nl80211.InterfaceType, _ net.HardwareAddr) (nl80211.Interface, error) {
	if err := c.enter("NewInterface", radio); err != nil {
		return nl80211.Interface{}, err
	}
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	for _, i := range c.k.ifaces {
		if i.Name == name {
			return nl80211.Interface{}, unix.ENFILE
		}
	}
	c.k.next++
	i := nl80211.Interface{Index: c.k.next, Name: name, Wiphy: radio, Type: t, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(radio)}, Channel: nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}}
	c.k.ifaces[i.Index] = i
	return i, nil
}

func (c *chipConn) DeleteInterface(index int) error {
	if err := c.of("DeleteInterface", index); err != nil {
		return err
	}
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	delete(c.k.ifaces, index)
	return nil
}

func (c *chipConn) SetPowerSave(i int, _ bool) error      { return c.of("SetPowerSave", i) }
func (c *chipConn) SetTxPower(i, _ int) error             { return c.of("SetTxPower", i) }
func (c *chipConn) AddKey(i int, _ nl80211.Key) error     { return c.of("AddKey", i) }
func (c *chipConn) UseGroupKey(i int, _ uint8) error      { return c.of("UseGroupKey", i) }
func (c *chipConn) UseManagementKey(i int, _ uint8) error { return c.of("UseManagementKey", i) }
func (c *chipConn) KeySeq(i int, _ uint8, _ net.HardwareAddr, _ nl80211.KeyType) ([]byte, error) {
	return make([]byte, 6), c.of("KeySeq", i)
}
func (c *chipConn) JoinMesh(i int, _ nl80211.MeshSetup) error { return c.of("JoinMesh", i) }
func (c *chipConn) Stations(i int) ([]nl80211.StationInfo, error) {
	return nil, c.of("Stations", i)
}
func (c *chipConn) Station(i int, _ net.HardwareAddr) (nl80211.StationInfo, error) {
	return nl80211.StationInfo{}, c.of("Station", i)
}
func (c *chipConn) AddStation(i int, _ nl80211.NewStation) error { return c.of("AddStation", i) }
func (c *chipConn) SetStation(i int, _ net.HardwareAddr, _ nl80211.StationChange) error {
	return c.of("SetStation", i)
}
func (c *chipConn) DeleteStation(i int, _ net.HardwareAddr) error { return c.of("DeleteStation", i) }
func (c *chipConn) SwitchChannel(i int, _ nl80211.Channel, _ int) error {
	return c.of("SwitchChannel", i)
}
func (c *chipConn) Send(i int, _ nl80211.SendFrame) (uint64, error) { return 0, c.of("Send", i) }

// ears is a listener.
type ears struct {
	in    chan nl80211.Event
	ended chan struct{}
}

func (e *ears) Next(ctx context.Context) (nl80211.Event, error) {
	select {
	case v := <-e.in:
		return v, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ended:
		return nil, net.ErrClosed
	}
}
func (*ears) Only(int) error                                           { return nil }
func (*ears) RegisterFrame(context.Context, int, uint16, []byte) error { return nil }
func (e *ears) Close() error                                           { close(e.ended); return nil }

// running has radios run until the function is called, which returns how long they took
// to end.
func running(t *testing.T, rs *Radios) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- rs.Run(ctx) }()
	return func() time.Duration {
		at := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return time.Since(at)
	}
}

// members returns the names of radios that are members, and hang.
func members(rs *Radios) (members, hang []string) {
	for _, s := range rs.List() {
		if s.Detail == "" {
			members = append(members, s.Name)
		}
		if s.Hangs > 0 {
			hang = append(hang, s.Name)
		}
	}
	return members, hang
}

// TestRadiosEndWhileOneHangs: whichever call into the kernel does not come back, the other
// radios join with another profile seconds later; nobody is sent after the one that hangs;
// and what comes back after an hour finds that the radio is another's.
func TestRadiosEndWhileOneHangs(t *testing.T) {
	for _, at := range []string{"Wiphy", "InterfacesOf", "NewInterface", "raise", "AddKey", "JoinMesh", "KeySeq", "Stations", "Send", "DeleteInterface"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, left := newChips(3), &Left{}
				h, back := k.hang(0, at)
				rs := k.radiosOf(left, nil)
				stop := running(t, rs)
				time.Sleep(2 * time.Minute)
				if is, hang := members(rs); !slices.Contains(is, "phy1") || !slices.Contains(is, "phy2") || len(hang) > 0 && hang[0] != "phy0" || (len(hang) == 0) != (at == "DeleteInterface") {
					t.Errorf("members %v, hang %v", is, hang)
				}
				if took := stop(); took > 2*apart.LetGo {
					t.Fatalf("the radios end after %s", took)
				}
				if n := k.isStuck(h); n != 1 {
					t.Fatalf("%d calls hang", n)
				}
				_, place := k.since(0)
				for range 3 { // switches of the profile
					rs = k.radiosOf(left, nil)
					stop = running(t, rs)
					time.Sleep(20 * time.Minute)
					if is, hang := members(rs); !slices.Equal(is, []string{"phy1", "phy2"}) || !slices.Equal(hang, []string{"phy0"}) {
						t.Errorf("after a switch: members %v, hang %v", is, hang)
					}
					rs.Again(0)
					rs.Again(1)
					time.Sleep(time.Minute)
					if took := stop(); took > 2*apart.LetGo {
						t.Fatalf("the radios end after %s", took)
					}
				}
				rs = k.radiosOf(left, nil)
				stop = running(t, rs)
				time.Sleep(time.Minute)
				calls, place := func() ([]call, int) { c, p := k.since(place); return c, p }()
				if n := k.isStuck(h); n != 1 || slices.ContainsFunc(calls, func(c call) bool { return c.wiphy == 0 }) {
					t.Errorf("somebody was sent after it: %d hang", n)
				}
				if n := k.told(EventHangs); n != 1 {
					t.Errorf("told %d times that it hangs", n)
				}
				before := len(k.inBat)
				abandoned := map[*chipConn]bool{}
				all, _ := k.since(0)
				for _, c := range all {
					if c.wiphy == 0 {
						abandoned[c.conn] = true
					}
				}
				back()
				synctest.Wait()
				time.Sleep(time.Minute)
				if is, hang := members(rs); len(is) != 3 || len(hang) != 0 || len(left.List()) != 0 {
					t.Errorf("after it came back: members %v, hang %v, left %v", is, hang, left.List())
				}
				calls, _ = k.since(place)
				for _, c := range calls {
					if abandoned[c.conn] {
						t.Errorf("what was left behind did %s of radio %d", c.what, c.wiphy)
					}
				}
				if len(k.inBat) != before+1 {
					t.Errorf("put into bat0: %v", k.inBat[before:])
				}
				names := map[string]int{}
				for _, i := range k.ifaces {
					names[i.Name]++
				}
				if len(k.ifaces) != 3 || len(names) != 3 {
					t.Errorf("interfaces %v", k.ifaces)
				}
				if took := stop(); took > time.Second || len(k.ifaces) != 0 {
					t.Errorf("well again, they end after %s, and leave %v", took, k.ifaces)
				}
			})
		})
	}
}

// TestARadioThatHangsIsUnplugged while others go on.
func TestARadioThatHangsIsUnplugged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, left := newChips(2), &Left{}
		_, back := k.hang(0, "Stations")
		rs := k.radiosOf(left, nil)
		stop := running(t, rs)
		time.Sleep(time.Minute)
		rs.Again(0)
		time.Sleep(time.Minute)
		if l := rs.List(); l[0].Detail != ErrHangs.Error() || l[0].Failures != 0 || l[1].Detail != "" {
			t.Errorf("got %+v", l)
		}
		k.unplug(0)
		time.Sleep(time.Minute)
		if l := rs.List(); len(l) != 1 || l[0].Name != "phy1" || l[0].Detail != "" || k.told(EventGone) != 1 {
			t.Errorf("got %+v", l)
		}
		back()
		synctest.Wait()
		if len(left.List()) != 0 {
			t.Errorf("left %v", left.List())
		}
		stop()
	})
}

// TestWhoseARadioIs may not be said: the others join, the state can be asked for, and it is
// the mesh's once the kernel has said so.
func TestWhoseARadioIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newChips(3)
		hung, asked := make(chan struct{}), 0
		rs := k.radiosOf(nil, func(w nl80211.Wiphy) error {
			if w.Index == 0 {
				asked++
				<-hung
			}
			if w.Index == 2 {
				return errors.New("it is in use")
			}
			return nil
		})
		stop := running(t, rs)
		time.Sleep(time.Second)
		rs.List() // waits for nobody
		time.Sleep(time.Hour)
		if l := rs.List(); len(l) != 3 || l[0].Iface != "" || l[0].Detail == "" || l[1].Detail != "" || l[2].Detail != "it is in use" || asked != 1 {
			t.Errorf("got %+v, asked %d times", l, asked)
		}
		close(hung)
		time.Sleep(time.Minute)
		if is, _ := members(rs); !slices.Equal(is, []string{"phy0", "phy1"}) {
			t.Errorf("members %v", is)
		}
		stop()
	})
}
