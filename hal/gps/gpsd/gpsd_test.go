package gpsd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/hal/gps"
)

var moment = time.Date(2026, 11, 20, 12, 0, 1, 500_000_000, time.UTC)

var mouse = gps.Device{Path: "/dev/ttyACM0", Place: "1-1:1.0", Rate: 9600}

func fix() gps.Fix {
	n := math.NaN()
	return gps.Fix{
		At: time.Now(), Time: moment, Mode: gps.Fix3D, Quality: gps.Differential, Lat: 48.1173, Lon: 11.516666667, Alt: 520.5, Geoid: 47, Speed: 1, Track: 45,
		PDOP: 1.5, HDOP: .8, VDOP: n, SigmaLat: 1.5, SigmaLon: 2, SigmaAlt: n, Accuracy: 5, AccuracyAlt: n, AccuracySource: gps.FromGST, Used: 2, Seen: 3,
	}
}

var sky = gps.Sky{Satellites: []gps.Satellite{
	{GNSS: gps.GPS, SV: 1, Elevation: 40, Azimuth: 83, SNR: 46, Used: true},
	{GNSS: gps.GLONASS, SV: 8, Elevation: 60, Azimuth: 200, SNR: 35, Used: true},
	{GNSS: gps.Galileo, SV: 11, Elevation: -1, Azimuth: -1, SNR: -1},
}}

// serve starts a server on loopback.
func serve(t *testing.T, allowed func(local, remote netip.AddrPort) bool) (*Server, string) {
	t.Helper()
	if allowed == nil {
		allowed = func(_, _ netip.AddrPort) bool { return true }
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, allowed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// talk is a client.
type talk struct {
	net.Conn
	*bufio.Reader
}

func dial(t *testing.T, addr string) talk {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return talk{c, bufio.NewReader(c)}
}

func (c talk) say(t *testing.T, s string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		t.Fatal(err)
	}
}

func (c talk) line(t *testing.T) string {
	t.Helper()
	s, err := c.ReadString('\n')
	if err != nil {
		t.Fatalf("after %q: %v", s, err)
	}
	return strings.TrimSuffix(s, "\r\n")
}

func (c talk) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := c.line(t); got != w {
			t.Errorf("got\n%s\nwant\n%s", got, w)
		}
	}
}

const (
	version = `{"class":"VERSION","release":"3.22","rev":"3.22","proto_major":3,"proto_minor":14}`
	tpvLine = `{"class":"TPV","device":"/dev/ttyACM0","status":2,"mode":3,"time":"2026-11-20T12:00:01.500Z","lat":48.1173,"lon":11.516666667,"altHAE":567.5,"altMSL":520.5,"alt":520.5,"epx":4,"epy":3,"track":45,"speed":1,"geoidSep":47,"eph":5}`
	skyLine = `{"class":"SKY","device":"/dev/ttyACM0","time":"2026-11-20T12:00:01.500Z","hdop":0.8,"pdop":1.5,"nSat":3,"uSat":2,"satellites":[` +
		`{"PRN":1,"el":40,"az":83,"ss":46,"used":true,"gnssid":0,"svid":1},{"PRN":72,"el":60,"az":200,"ss":35,"used":true,"gnssid":6,"svid":8},{"PRN":311,"used":false,"gnssid":2,"svid":11}]}`
	gstLine  = `{"class":"GST","device":"/dev/ttyACM0","time":"2026-11-20T12:00:01.500Z","lat":1.5,"lon":2}`
	watching = `{"class":"WATCH","enable":true,"json":true,"nmea":false,"raw":0,"scaled":false,"timing":false,"split24":false,"pps":false}`
)

func TestProtocol(t *testing.T) {
	s, addr := serve(t, nil)
	c := dial(t, addr)
	c.expect(t, version)
	c.say(t, "?VERSION;\r\n")
	c.expect(t, version)
	c.say(t, `?DEVICES;?WATCH={"enable":true,"json":true}`+"\n")
	c.expect(t, `{"class":"DEVICES","devices":[]}`, `{"class":"DEVICES","devices":[]}`, watching)

	s.Found(mouse)
	var d struct {
		Class, Path, Driver, Activated string
		BPS                            int
	}
	if err := json.Unmarshal([]byte(c.line(t)), &d); err != nil || d.Class != "DEVICE" || d.Path != mouse.Path || d.BPS != 9600 || d.Activated == "" {
		t.Errorf("got %+v, %v", d, err)
	}
	s.Sentence("$GPTXT,nobody asked for it*00")
	s.Fix(fix(), sky, "")
	c.expect(t, gstLine, skyLine, tpvLine)
	c.say(t, "?POLL;\n")
	poll := c.line(t)
	if !strings.HasPrefix(poll, `{"class":"POLL","time":"`) || !strings.HasSuffix(poll, `"active":1,"tpv":[`+tpvLine+`],"gst":[`+gstLine+`],"sky":[`+skyLine+`]}`) {
		t.Error(poll)
	}
	none := fix()
	none.Mode, none.Time, none.HDOP, none.PDOP, none.Used = gps.NoFix, time.Time{}, math.NaN(), math.NaN(), 0
	s.Fix(none, gps.Sky{}, gps.ReasonJump)
	c.expect(t, `{"class":"SKY","device":"/dev/ttyACM0","nSat":0,"uSat":0,"satellites":[]}`, `{"class":"TPV","device":"/dev/ttyACM0","mode":1}`)

	p := dial(t, addr)
	p.say(t, `?WATCH={"nmea":true,"pps":true};`+"\n")
	p.line(t) // the version
	p.line(t) // the device
	p.expect(t, `{"class":"WATCH","enable":true,"json":false,"nmea":true,"raw":0,"scaled":false,"timing":false,"split24":false,"pps":true}`)
	s.Sentence("$GPZDA,120001.50,20,11,2026,00,00*66")
	s.Pulse(gps.Pulse{Device: "/dev/pps0", Clock: moment.Add(time.Millisecond), Real: moment})
	p.expect(t, "$GPZDA,120001.50,20,11,2026,00,00*66", `{"class":"PPS","device":"/dev/pps0","real_sec":1795176001,"real_nsec":500000000,"clock_sec":1795176001,"clock_nsec":501000000,"precision":-20}`)
	p.say(t, `?WATCH={"enable":false};?DEVICE={"bps":4800};`+"\n")
	p.line(t)
	p.line(t)
	if err := json.Unmarshal([]byte(p.line(t)), &d); err != nil || d.BPS != 9600 {
		t.Errorf("somebody else sets the rate: %+v", d)
	}

	s.Gone(mouse, io.EOF)
	c.expect(t, `{"class":"DEVICE","path":"/dev/ttyACM0","activated":0,"native":0}`)
	c.say(t, "?DEVICE;?NONSENSE;?WATCH=[];hello\n")
	c.expect(t, `{"class":"ERROR","message":"Can't perform DEVICE configuration, no devices attached."}`,
		`{"class":"ERROR","message":"Unrecognized request '?NONSENSE'"}`, `{"class":"ERROR","message":"expected ?WATCH={…};, got '=[];hello'"}`)

	s.Place(&Static{48, 11, math.NaN()})
	c.expect(t, `{"class":"TPV","device":"static","mode":2,"lat":48,"lon":11}`)
	s.Repeat()
	c.expect(t, `{"class":"TPV","device":"static","mode":2,"lat":48,"lon":11}`)
	c.say(t, "?WATCH;\n")
	c.expect(t, `{"class":"DEVICES","devices":[{"class":"DEVICE","path":"static","driver":"static","native":0}]}`, watching, `{"class":"TPV","device":"static","mode":2,"lat":48,"lon":11}`)
}

func TestAnotherDeviceIsNotThisOne(t *testing.T) {
	s, addr := serve(t, nil)
	s.Found(mouse)
	c := dial(t, addr)
	c.say(t, `?WATCH={"json":true,"device":"/dev/ttyUSB7"}`+"\n")
	c.line(t)
	c.line(t)
	c.line(t)
	s.Fix(fix(), sky, "")
	c.say(t, "?VERSION;\n")
	c.expect(t, version)
}

// TestStrangersHearNothing, and no address takes all places.
func TestStrangersHearNothing(t *testing.T) {
	meant := false
	s, addr := serve(t, func(local, remote netip.AddrPort) bool { return meant && local.Addr().IsLoopback() && remote.IsValid() })
	c := dial(t, addr)
	if b, err := io.ReadAll(c.Conn); len(b) > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %q, %v", b, err)
	}
	meant = true
	for range maxClients {
		dial(t, addr).expect(t, version)
	}
	c = dial(t, addr)
	if b, err := io.ReadAll(c.Conn); len(b) > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %q, %v", b, err)
	}
	if st := s.Stats(); st.Clients != maxClients || st.Refused != 1 {
		t.Errorf("got %+v", st)
	}
	same := netip.MustParseAddr("10.43.7.9")
	s = New(slog.New(slog.DiscardHandler))
	for i := range maxSame + 1 {
		if _, ok := s.admit(nil, same); ok != (i < maxSame) {
			t.Errorf("connection %d of one address: %v", i+1, ok)
		}
	}
}

// TestSlowClientsAreDropped, and others do not wait for them.
func TestSlowClientsAreDropped(t *testing.T) {
	s, addr := serve(t, nil)
	s.Found(mouse)
	slow := dial(t, addr)
	slow.say(t, `?WATCH={"json":true}`+"\n")
	slow.line(t)
	slow.line(t)
	slow.line(t)
	limit := time.Now().Add(30 * time.Second)
	for s.Stats().Dropped == 0 { // until the kernel's buffers are full, and ours
		if time.Now().After(limit) {
			t.Fatal("a client that does not read stays")
		}
		began := time.Now()
		s.Fix(fix(), sky, "")
		if d := time.Since(began); d > 5*time.Second {
			t.Fatalf("the receiver waited for %s", d)
		}
	}
	for s.Stats().Clients != 0 {
		if time.Now().After(limit) {
			t.Fatal("its place is not free")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLongRequestsEnd(t *testing.T) {
	_, addr := serve(t, nil)
	c := dial(t, addr)
	c.expect(t, version)
	c.say(t, "?WATCH={"+strings.Repeat(" ", 2*maxRequest))
	if _, err := c.ReadByte(); err == nil {
		t.Error("it is answered")
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"?VERSION;\r\n", `?WATCH={"enable":true,"json":true,"device":"/dev/ttyACM0"};?POLL;`, "?DEVICE={\"bps\":4800}", "?WATCH={\"raw\":1e99};", ";;;?;?=;?={};x", "?WATCH={}{}"} {
		f.Add([]byte(s))
	}
	s := New(slog.New(slog.DiscardHandler))
	s.Found(mouse)
	s.Fix(fix(), sky, "")
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &client{server: s, out: make(chan []byte, maxQueue), slow: make(chan struct{})}
		out := s.answer(c, b[:min(len(b), maxRequest)])
		if len(out) > 3*maxRequests+1 {
			t.Fatalf("%d answers", len(out))
		}
		for _, m := range out {
			if !json.Valid(bytes.TrimSpace(m)) || bytes.Count(m, []byte("\n")) != 1 {
				t.Fatalf("%q", m)
			}
		}
	})
}

// debian skips the test unless one of Debian's programs is there.
func debian(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: `make peers` does (gpsd-clients)", name)
	}
	return path
}

// play has a receiver say something ten times a second until the test ends.
func play(t *testing.T, s *Server) {
	t.Helper()
	s.Found(mouse)
	ctx, cancel := context.WithCancel(context.Background())
	var playing sync.WaitGroup
	playing.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			s.Sentence("$GPZDA,120001.50,20,11,2026,00,00*66")
			s.Fix(fix(), sky, "")
			s.Pulse(gps.Pulse{Device: "/dev/pps0", Clock: moment, Real: moment})
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() { cancel(); playing.Wait() })
}

// TestGPSPipe: Debian's program hears what it asks for.
func TestGPSPipe(t *testing.T) {
	program := debian(t, "gpspipe")
	s, addr := serve(t, nil)
	play(t, s)
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var out, complaints bytes.Buffer
		cmd := exec.CommandContext(ctx, program, append(args, addr)...)
		cmd.Stdout, cmd.Stderr = &out, &complaints
		if err := cmd.Run(); err != nil {
			t.Fatalf("gpspipe %v: %v: %s", args, err, complaints.String())
		}
		return out.String()
	}
	out := run("-w", "-n", "9")
	for _, want := range []string{version, `"class":"DEVICES","devices":[{"class":"DEVICE","path":"/dev/ttyACM0"`, tpvLine, skyLine} {
		if !strings.Contains(out, want) {
			t.Errorf("gpspipe -w has no %s:\n%s", want, out)
		}
	}
	if out := run("-r", "-n", "6"); !strings.Contains(out, "$GPZDA,120001.50,20,11,2026,00,00*66") {
		t.Errorf("gpspipe -r:\n%s", out)
	}
	if out := run("-P", "-w", "-n", "12"); !strings.Contains(out, `"class":"PPS","device":"/dev/pps0"`) {
		t.Errorf("gpspipe -P:\n%s", out)
	}
}

// TestCGPS: Debian's program shows what it hears, on a terminal.
func TestCGPS(t *testing.T) {
	program := debian(t, "cgps")
	s, addr := serve(t, nil)
	play(t, s)
	screen, name := pty(t)
	tty, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-s", host+":"+port)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = append(os.Environ(), "TERM=vt100")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	var shown strings.Builder
	b := make([]byte, 4096)
	stop := context.AfterFunc(ctx, func() { _ = screen.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := screen.Read(b)
		shown.Write(b[:n])
		text := shown.String()
		if strings.Contains(text, "3D DGPS FIX") && strings.Contains(text, "48.1173") && strings.Contains(text, "GL  8") {
			return
		}
		if err != nil {
			t.Fatalf("cgps does not show the fix: %v: %q", err, text[:min(len(text), 4000)])
		}
	}
}

func pty(t *testing.T) (*os.File, string) {
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
	f := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { f.Close() })
	return f, fmt.Sprintf("/dev/pts/%d", n)
}
