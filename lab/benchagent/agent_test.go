package benchagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"halo.internal/agent"
	"halo.internal/agent/sensors"
	"halo.internal/gateway"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/lab/chips"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// The figures that halo-agent has to keep within, of HALO.md and its plan.
const (
	maxResidentMiB = 24
	maxPercent     = 3
	boards         = 20 // sensors
	measured       = 60 * time.Second
	settled        = 15 * time.Second
	limit          = 2 * time.Minute
)

const childEnv = "HALO_BENCH_AGENT"

type child struct{ Root, Gateway string }

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	debug.SetMemoryLimit(24 << 20) // as cmd/halo-agent does
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := agent.Run(ctx, agent.Config{Root: c.Root, Role: model.RoleGateway, BootID: "bench", Buses: buses, Flags: agent.Settings{Gateway: c.Gateway}, Log: log}); err != nil {
		log.Error("agent", "err", err)
		os.Exit(1)
	}
}

// wire is a bus with chips on it.
type wire struct{ *chips.Bus }

func (wire) Close() error { return nil }

func (w wire) Present(_ context.Context, inUse []uint16) ([]uint16, error) {
	used := map[uint16]bool{}
	for _, a := range inUse {
		used[a] = true
	}
	there := []uint16{}
	for a := uint16(8); a < 0x78; a++ {
		if !used[a] && w.Tx(a, nil, make([]byte, 1)) == nil {
			there = append(there, a)
		}
	}
	return there, nil
}

// buses are ten, with two chips that are known beyond doubt on each.
var buses = sync.OnceValues(func() ([]sensors.Bus, error) {
	var list []sensors.Bus
	for i := range boards / 2 {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(20+float64(i), 40, 101325))
		b.Attach(0x40, chips.NewINA226(0.1, 12, 0.5))
		list = append(list, sensors.Bus{Path: fmt.Sprintf("bench.%d", i), Open: func() (sensors.Wire, error) { return wire{b}, nil }})
	}
	return list, nil
})

// BenchmarkAgent reports the resident memory and the share of a processor, and fails
// where a figure is missed.
func BenchmarkAgent(b *testing.B) {
	for b.Loop() {
		run(b)
	}
}

func run(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	data, root := b.TempDir(), b.TempDir()
	stop := begin(b, func(ctx context.Context) error {
		return gateway.Run(ctx, gateway.Laptop(data, []string{address}, io.Discard, slog.New(slog.DiscardHandler)))
	})
	defer stop()
	await(b, "the gateway", func() bool {
		resp, err := http.Get("http://" + address + "/health")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	st, err := identity.Load(paths.Dir(data).File(paths.Identity), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer begin(b, mesh(root, st.Key))()
	prepare(b, root, st.Key)
	gps, end := receiver(b)
	defer end()
	settings := fmt.Sprintf("[gps]\nport = %q\nrate = 9600\nshare = \"nobody\"\n", gps)
	if err := os.WriteFile(filepath.Join(root, paths.State, paths.AgentTOML), []byte(settings), 0o600); err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(child{root, "ws://" + address + "/v1/nodes/stream"})
	if err != nil {
		b.Fatal(err)
	}
	p := exec.Command(os.Args[0])
	p.Env = append(os.Environ(), childEnv+"="+string(text))
	p.Stderr = os.Stderr
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = p.Process.Signal(syscall.SIGTERM) // Wait tells
		_ = p.Wait()
	}()
	a := local.NewAgent(filepath.Join(root, paths.AgentSocket))
	await(b, "twenty sensors that are read", func() bool {
		s, err := a.Status(b.Context())
		if err != nil || s.Inventory == nil {
			return false
		}
		n := 0
		for _, v := range s.Inventory.Sensors {
			if v.State == model.SensorOK && v.IntervalS == 1 {
				n++
			}
		}
		return n == boards
	})
	time.Sleep(settled)
	before := ticks(b, p.Process.Pid)
	began := time.Now()
	time.Sleep(measured)
	used := float64(ticks(b, p.Process.Pid)-before) / 100 / time.Since(began).Seconds() * 100
	resident := float64(rssKiB(b, p.Process.Pid)) / 1024
	b.ReportMetric(resident, "MiB-resident")
	b.ReportMetric(used, "%-of-a-core")
	if resident > maxResidentMiB {
		b.Errorf("halo-agent has %.1f MiB resident, at most %d are allowed", resident, maxResidentMiB)
	}
	if used > maxPercent {
		b.Errorf("halo-agent takes %.2f %% of a core, at most %d are allowed", used, maxPercent)
	}
}

func await(b *testing.B, what string, so func() bool) {
	b.Helper()
	for deadline := time.Now().Add(limit); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("it never came: %s", what)
		}
	}
}

// begin runs something until the returned function is called.
func begin(b *testing.B, f func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// mesh stands in for halo-mesh.
func mesh(root string, key identity.Key) func(context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+local.RouteStatus, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(model.MeshStatus{Node: key.ID(), Name: "bench", Role: model.RoleGateway, Clock: model.ClockGateway, Joined: true, NetworkKey: key.Public().Base64(), BootCounter: 1, Time: time.Now()})
	})
	mux.HandleFunc("GET "+local.RouteHealth, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(health.Report{Name: "halo-mesh", State: health.OK})
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") })
	return func(ctx context.Context) error { return local.Serve(ctx, filepath.Join(root, paths.MeshSocket), mux) }
}

// prepare writes who the node is, and that each chip is read once a second.
func prepare(b *testing.B, root string, key identity.Key) {
	state := identity.State{Key: key, BootCounter: 1, BootID: "bench"}
	type entry struct {
		Bus       string  `json:"bus"`
		Address   uint16  `json:"address"`
		Chip      string  `json:"chip"`
		Label     string  `json:"label"`
		Assigned  bool    `json:"assigned"`
		IntervalS float64 `json:"interval_s"`
	}
	var said []entry
	for i := range boards / 2 {
		path := fmt.Sprintf("bench.%d", i)
		said = append(said, entry{path, 0x76, "bme280", fmt.Sprintf("air%d", i), true, 1}, entry{path, 0x40, "ina226", fmt.Sprintf("power%d", i), true, 1})
	}
	text, err := json.Marshal(said)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(root, paths.State, paths.SensorsFile)
	for name, content := range map[string][]byte{filepath.Join(root, paths.RunIdentity): state.Marshal(), file: text} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// receiver is a terminal on which a GPS receiver speaks ten times a second.
func receiver(b *testing.B) (name string, end func()) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.Fatal(err)
	}
	var n, unlock int32
	for _, c := range []struct {
		request uintptr
		arg     unsafe.Pointer
	}{{unix.TIOCSPTLCK, unsafe.Pointer(&unlock)}, {unix.TIOCGPTN, unsafe.Pointer(&n)}} {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, m.Fd(), c.request, uintptr(c.arg)); e != 0 {
			b.Fatal(e)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case at := <-tick.C:
				at = at.UTC()
				stamp := at.Format("150405.00")
				_, _ = m.WriteString(sentence("GPGGA,"+stamp+",4807.0380,N,01131.0000,E,1,08,0.9,545.4,M,46.9,M,,") + sentence("GPRMC,"+stamp+",A,4807.0380,N,01131.0000,E,000.1,084.4,"+at.Format("020106")+",,,A")) // nobody may listen yet
			}
		}
	}()
	return "/dev/pts/" + strconv.Itoa(int(n)), func() {
		cancel()
		m.Close() // ends a write that waits
		<-done
	}
}

// sentence adds the frame and checksum of NMEA 0183.
func sentence(s string) string {
	sum := byte(0)
	for i := range len(s) {
		sum ^= s[i]
	}
	return fmt.Sprintf("$%s*%02X\r\n", s, sum)
}

// ticks are the hundredths of a second that a process has had.
func ticks(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return user + system
}

func rssKiB(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "VmRSS:")
	f := strings.Fields(rest)
	if !ok || len(f) < 1 {
		b.Fatalf("expected VmRSS, got %.200q", text)
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
