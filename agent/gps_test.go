package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/agent/collect"
	"halo.internal/hal/gps"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
)

// receiver plays one at the other end of a pseudo terminal.
func receiver(t *testing.T, ctx context.Context) string {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	m := os.NewFile(uintptr(fd), "ptmx")
	var playing sync.WaitGroup
	t.Cleanup(func() { playing.Wait(); m.Close() })
	playing.Go(func() {
		for ctx.Err() == nil {
			now := time.Now().UTC()
			next := now.Truncate(100 * time.Millisecond).Add(100 * time.Millisecond)
			select {
			case <-ctx.Done():
			case <-time.After(next.Sub(now)):
			}
			var out strings.Builder
			for _, s := range []string{
				"GNRMC," + next.Format("150405.00") + ",A,4807.0380,N,01131.0000,E,19.44,45.0," + next.Format("020106") + ",,,A",
				"GNGGA," + next.Format("150405.00") + ",4807.0380,N,01131.0000,E,1,11,0.80,520.5,M,47.0,M,,",
			} {
				var x byte
				for i := range len(s) {
					x ^= s[i]
				}
				fmt.Fprintf(&out, "$%s*%02X\r\n", s, x)
			}
			_ = m.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // nobody reads while none is open
			_, _ = m.WriteString(out.String())
		}
	})
	return fmt.Sprintf("/dev/pts/%d", n)
}

// TestGPSFromTheWireToEverybody: telemetry, status, gpsd's protocol, the time.
func TestGPSFromTheWireToEverybody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	root := t.TempDir()
	c := Config{Root: root, Role: model.RoleNode, GPSD: []string{addr}, Log: slog.New(slog.DiscardHandler)}
	settings := "[gps]\nport = \"" + receiver(t, ctx) + "\"\n[gps.static]\nlat = 47.5\nlon = 11\n"
	if err := os.MkdirAll(c.path(paths.State), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths.Dir(c.path(paths.State)).File(paths.AgentTOML), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	times := make(chan model.GPSTime, 8)
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+local.RouteGPSTime, func(w http.ResponseWriter, r *http.Request) {
		var m model.GPSTime
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		times <- m
	})
	background(t, func(ctx context.Context) error { return local.Serve(ctx, c.path(paths.MeshSocket), mux) })
	background(t, func(ctx context.Context) error { return Run(ctx, c) })
	client := local.NewAgent(c.path(paths.AgentSocket))
	var st *model.GPSStatus
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s, err := client.Status(t.Context())
		if err == nil && s.GPS != nil {
			st = s.GPS
			p := st.Position
			if st.State == model.GPSFix3D && p != nil && p.Source == model.PositionGPS {
				break
			}
			if st.State != model.GPSFix3D && (p == nil || *p != (model.Position{Source: model.PositionStatic, Lat: 47.5, Lon: 11})) {
				t.Fatalf("without a fix: %+v", p)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no fix: %+v, %v", st, err)
		}
	}
	if p := st.Position; p == nil || p.Source != model.PositionGPS || p.Lat != 48.1173 || p.Lon != 11.5166667 || p.AltM == nil || *p.AltM != 520.5 || math.Abs(p.AccuracyM-11.4) > .05 || !p.Valid() {
		t.Errorf("got %+v", p)
	}
	if st.Used != 11 || st.SpeedMPS != 10 || st.Shared != shareClients || st.AccuracyBy != "hdop" || st.Quality != "autonomous" || st.Sentences == 0 {
		t.Errorf("got %+v", st)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "?WATCH={\"enable\":true,\"json\":true};\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewScanner(conn); r.Scan(); {
		if strings.Contains(r.Text(), `"class":"TPV"`) && strings.Contains(r.Text(), `"lat":48.1173`) {
			break
		}
	}
	select {
	case m := <-times:
		off := time.Until(m.Time).Abs() - time.Duration(int64(bootTime())-m.BootNS).Abs()
		if off.Abs() > 2*time.Second || m.AccuracyMS != 1000 || m.Pulse {
			t.Errorf("got %+v, off by %s", m, off)
		}
	case <-time.After(60 * time.Second):
		t.Error("halo-mesh is not told the time")
	}
}

// played is what an agent has whose receiver is played by calls.
func played(s GPS) *whereabouts {
	a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler), Root: "/nowhere", GPSD: []string{":2947"}}}
	a.settings.GPS = &s
	return newWhereabouts(a)
}

func fixed(at time.Time) gps.Fix {
	n := math.NaN()
	return gps.Fix{At: at, Time: at.UTC(), Mode: gps.Fix3D, Quality: gps.Autonomous, Lat: 48.1234567, Lon: -11.5, Alt: n, Speed: .1, Track: 45, HDOP: .8, Accuracy: 11.36, Used: 9}
}

func values(t *testing.T, w *whereabouts) string {
	t.Helper()
	list, err := w.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	var s wire.Schema
	for _, r := range list {
		s.Metrics = append(s.Metrics, r.Metric)
		text := "–"
		if r.Value.Present {
			text = fmt.Sprint(r.Metric.Number(r.Value))
		}
		out = append(out, strings.TrimPrefix(r.Metric.Name, "gps.")+" "+text)
	}
	if len(list) > 0 {
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	return strings.Join(out, ", ")
}

func TestPositionAsTelemetry(t *testing.T) {
	var _ collect.Collector = &whereabouts{}
	if got := values(t, played(GPS{})); got != "" {
		t.Errorf("without a receiver: %s", got)
	}
	alt := 12.5
	w := played(GPS{Static: &Static{Lat: 1.5, Lon: 2.25, Alt: &alt}})
	if got, want := values(t, w), "fix.lat_deg 1.5, fix.lon_deg 2.25, fix.alt_m 12.5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.Fix(fixed(time.Now()), gps.Sky{}, "")
	if got, want := values(t, w), "fix.lat_deg 48.123457, fix.lon_deg -11.5, fix.alt_m –"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p := w.position(); p.Source != model.PositionGPS || p.Lat != 48.1234567 || p.AltM != nil || p.AccuracyM != 11.4 {
		t.Errorf("got %+v", p)
	}
	w.good.At = time.Now().Add(-freshFor)
	if p := w.position(); p.Source != model.PositionStatic {
		t.Errorf("a fix of a while ago: %+v", p)
	}
	if p := played(GPS{}).position(); p != nil {
		t.Errorf("nobody knows: %+v", p)
	}
}

func TestEventsOfAFix(t *testing.T) {
	w := played(GPS{})
	said := func() string {
		var out []string
		for _, e := range w.untold {
			out = append(out, strings.TrimPrefix(e.kind, "gps."))
		}
		w.untold = nil
		return strings.Join(out, " ")
	}
	now := time.Now()
	d := gps.Device{Path: "/dev/ttyACM0", Place: "1-1"}
	w.Found(d)
	w.Fix(fixed(now), gps.Sky{}, "")
	w.Fix(fixed(now.Add(time.Second)), gps.Sky{}, "")
	w.look(now.Add(2 * time.Second))
	if got := said(); got != "receiver.found fix.gained" {
		t.Errorf("got %s", got)
	}
	for i := range 100 { // a loose plug
		w.Gone(d, os.ErrClosed)
		w.look(time.Now().Add(time.Second))
		w.Found(d)
		w.Fix(fixed(time.Now()), gps.Sky{}, "")
		if got := said(); got != "" {
			t.Fatalf("after %d: %s", i, got)
		}
	}
	last := w.good.At
	w.look(last.Add(lostAfter + time.Second))
	if got := said(); got != "fix.lost" {
		t.Errorf("got %s", got)
	}
	w.Fix(fixed(last.Add(40*time.Second)), gps.Sky{}, "")
	w.look(last.Add(40*time.Second + lostAfter + time.Second)) // patience grows
	if got := said(); got != "fix.gained" {
		t.Errorf("got %s", got)
	}
	w.look(last.Add(40*time.Second + 2*lostAfter + time.Second))
	if got := said(); got != "fix.lost" {
		t.Errorf("got %s", got)
	}
	w.Gone(d, os.ErrClosed)
	w.look(time.Now().Add(lostAfter + time.Second))
	w.look(time.Now().Add(lostAfter + 2*time.Second))
	if got := said(); got != "receiver.gone" {
		t.Errorf("got %s", got)
	}
	for range 3 * maxUntold {
		w.tell(eventFixLost, model.Info, "", nil)
	}
	if len(w.untold) != maxUntold {
		t.Errorf("%d events wait", len(w.untold))
	}
}

func TestWhoHearsTheReceiver(t *testing.T) {
	ap := netip.MustParseAddrPort
	for share, want := range map[string]string{"": "[:2947]", shareClients: "[:2947]", shareDevice: "[127.0.0.1:2947 [::1]:2947]", shareNobody: "[]"} {
		w := played(GPS{Share: share})
		if got := fmt.Sprint(w.addresses()); got != want {
			t.Errorf("%q: got %s, want %s", share, got, want)
		}
		if !w.meant(ap("127.0.0.1:2947"), ap("127.0.0.1:4000")) || !w.meant(ap("[::1]:2947"), ap("[::1]:4000")) {
			t.Errorf("%q: not the device itself", share)
		}
		for _, far := range []string{"10.41.0.9:4000", "10.42.0.9:4000", "127.0.0.1:4000", "192.0.2.1:4000"} {
			if w.meant(ap("10.42.0.1:2947"), ap(far)) { // no address among clients
				t.Errorf("%q: %s", share, far)
			}
		}
	}
	if got := played(GPS{Port: gpsOff}).addresses(); len(got) != 0 {
		t.Errorf("nothing to share: %v", got)
	}
}

func TestGPSSettings(t *testing.T) {
	for text, want := range map[string]string{
		"[gps]\nport = \"/dev/ttyAMA1\"\nrate = 9600\nshare = \"device\"\n[gps.static]\nlat = -33.9\nlon = 151.2\nalt_m = 3.5": "",
		"[gps]\nport = \"off\"":               "",
		"[gps]\nport = \"ttyAMA1\"":           "gps.port: expected a device file",
		"[gps]\nport = \"/dev/../etc/x\"":     "gps.port",
		"[gps]\nrate = 100":                   "gps.rate: expected 300 to 4000000 bit/s, or 0, got 100",
		"[gps]\nshare = \"all\"":              "gps.share: expected clients, device or nobody, got \"all\"",
		"[gps.static]\nlat = 91\nlon = 0":     "gps.static: expected lat",
		"[gps.static]\nlat = nan\nlon = 0":    "gps.static",
		"[gps]\nspeed = 9600":                 "unknown key \"gps.speed\"",
		"[gps.static]\nlat = 1\nlatitude = 1": "unknown key",
	} {
		s, err := parseSettings("agent.toml", []byte(text))
		if err == nil {
			err = s.or(defaults(model.RoleNode)).check()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestStaticPositionByCommand changes that alone of what the file says of the receiver.
func TestStaticPositionByCommand(t *testing.T) {
	c := Config{Root: t.TempDir(), Role: model.RoleNode}
	if err := os.MkdirAll(c.path(paths.State), 0o755); err != nil {
		t.Fatal(err)
	}
	file := paths.Dir(c.path(paths.State)).File(paths.AgentTOML)
	if err := os.WriteFile(file, []byte("[gps]\nshare = \"device\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	alt := 520.5
	for _, tc := range []struct {
		change *model.ConfigPosition
		told   string
		file   string
	}{
		{&model.ConfigPosition{Lat: 48.5, Lon: -11.25, AltM: &alt}, "48.5 -11.25", "[gps]\nshare = 'device'\n\n[gps.static]\nlat = 48.5\nlon = -11.25\nalt_m = 520.5\n"},
		{nil, "48.5 -11.25", "[gps]\nshare = 'device'\n\n[gps.static]\nlat = 48.5\nlon = -11.25\nalt_m = 520.5\n"},
		{&model.ConfigPosition{None: true}, "", "[gps]\nshare = 'device'\n"},
	} {
		s, err := c.configure(model.AgentConfig{Position: tc.change})
		if err != nil {
			t.Fatal(err)
		}
		told := ""
		if p := s.told().Position; p != nil {
			told = fmt.Sprint(p.Lat, " ", p.Lon)
		}
		b, err := os.ReadFile(file)
		if told != tc.told || err != nil || string(b) != tc.file {
			t.Errorf("got %q, %v, and the file has\n%s", told, err, b)
		}
	}
	if _, err := c.configure(model.AgentConfig{Position: &model.ConfigPosition{Lat: 91}}); err == nil {
		t.Error("91 degrees north")
	}
}

// Of the board's own ports, those are listened to that are for nothing else, unless
// somebody has said where the receiver is.
func TestPortsOfTheBoard(t *testing.T) {
	b := model.Board{Serial: []model.BoardSerial{{Name: "UART1", Device: "ttyS1", Taken: "console"}, {Name: "UART3", Device: "ttyAMA3"}}}
	if got := freePorts(b); !slices.Equal(got, []string{"ttyAMA3"}) {
		t.Errorf("got %q", got)
	}
}
