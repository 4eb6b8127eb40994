package mesh

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"halo.internal/identity/nodecode"
	"halo.internal/local"
	"halo.internal/mesh/door"
	"halo.internal/mesh/support"
	"halo.internal/model/order"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// withSupport adds the support bundle to the routes, from which it is made.
func (m *core) withSupport(routes http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", routes)
	mux.HandleFunc("GET "+local.RouteSupport, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/gzip")
		now, _ := m.clock.Now()
		if err := support.Write(r.Context(), w, now, m.supportSources(r.Context(), routes), m.secrets()); err != nil {
			panic(http.ErrAbortHandler) // nobody takes a part for the whole
		}
	})
	return mux
}

// supportSources are the files of the support bundle: what may be read at the
// door, the other processes' health, the last lines of all logs, and what kernel and
// guard say. The log of this process is there twice: what it remembers reaches further
// back, and gokrazy knows what was said before a restart, and why it fell.
func (m *core) supportSources(ctx context.Context, routes http.Handler) []support.Source {
	var list []support.Source
	for _, r := range door.Routes {
		if method, path, _ := strings.Cut(r.Pattern, " "); r.Support && method == http.MethodGet {
			name := strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(path, "/v1"), "/"), "/", "-")
			list = append(list, support.Source{Name: name + ".json", Read: func(ctx context.Context) ([]byte, error) { return ask(ctx, routes, path) }})
		}
	}
	for name, at := range map[string][2]string{
		"halo-agent-health.json":  {paths.AgentSocket, local.RouteHealth},
		"halo-agent-status.json":  {paths.AgentSocket, local.RouteStatus},
		"gateway-api-health.json": {paths.GatewaySocket, local.RouteHealth},
		"halo-field-health.json":  {paths.FieldSocket, local.RouteHealth},
	} {
		list = append(list, support.Source{Name: name, Read: func(ctx context.Context) ([]byte, error) { return askSocket(ctx, m.path(at[0]), at[1]) }})
	}
	for name, path := range map[string]string{
		"boot.json": m.path(paths.BootReport), "meminfo.txt": "/proc/meminfo", "loadavg.txt": "/proc/loadavg", "uptime.txt": "/proc/uptime",
		"mounts.txt": "/proc/mounts", "modules.txt": "/proc/modules", "net-dev.txt": "/proc/net/dev", "net-sockstat.txt": "/proc/net/sockstat",
	} {
		list = append(list, support.Source{Name: name, Read: func(context.Context) ([]byte, error) { return readBounded(path) }})
	}
	logs := sync.OnceValue(func() map[string]processLog { return m.processLogs(ctx) })
	for _, name := range paths.Programs() {
		list = append(list, support.Source{Name: "log/" + name + ".txt", Read: func(context.Context) ([]byte, error) {
			l := logs()[name]
			return l.text, l.err
		}})
	}
	crashes, _ := filepath.Glob(filepath.Join(m.path(paths.LastCrashDir), "*"))
	for _, path := range crashes {
		list = append(list, support.Source{Name: "crash/" + filepath.Base(path), Read: func(context.Context) ([]byte, error) { return readBounded(path) }})
	}
	list = append(list,
		support.Source{Name: "version.json", Read: func(context.Context) ([]byte, error) { return json.MarshalIndent(version.Get(), "", "  ") }},
		support.Source{Name: "log/halo-mesh-now.txt", Read: func(context.Context) ([]byte, error) { return m.logged.Bytes(), nil }},
		support.Source{Name: "processes.txt", Read: func(context.Context) ([]byte, error) { return support.Processes("/proc") }},
		support.Source{Name: "kernel.txt", Read: func(context.Context) ([]byte, error) { return kernelMessages() }},
	)
	order.By(list, func(a, b support.Source) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// processLog is what gokrazy has of a program's log.
type processLog struct {
	text []byte
	err  error
}

// processLogs returns the logs of all programs. It reads them all at once: of each only
// time tells that there is no more, and none may have those after it be late.
func (m *core) processLogs(ctx context.Context) map[string]processLog {
	names := paths.Programs()
	got := make([]processLog, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			got[i].text, got[i].err = support.ProcessLog(ctx, m.path(paths.GokrazySocket), paths.Program(name))
		})
	}
	all.Wait()
	logs := map[string]processLog{}
	for i, name := range names {
		logs[name] = got[i]
	}
	return logs
}

// ask returns what a route answers to itself.
func ask(ctx context.Context, routes http.Handler, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://halo"+path, nil)
	if err != nil {
		return nil, err
	}
	a := &heldAnswer{header: http.Header{}, status: http.StatusOK}
	routes.ServeHTTP(a, r)
	if a.status/100 != 2 && path != local.RouteHealth {
		return nil, fmt.Errorf("%d: %s", a.status, bytes.TrimSpace(a.body.Bytes()))
	}
	return a.body.Bytes(), nil
}

// heldAnswer keeps an answer in memory.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *heldAnswer) Header() http.Header         { return a.header }
func (a *heldAnswer) WriteHeader(status int)      { a.status = status }
func (a *heldAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }

// askSocket returns what another process answers.
func askSocket(ctx context.Context, socket, path string) ([]byte, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://halo"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, support.MaxFile))
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, support.MaxFile))
}

// kernelMessages returns the kernel's log buffer.
func kernelMessages() ([]byte, error) {
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, fmt.Errorf("kernel messages: %w", err)
	}
	b := make([]byte, min(n, support.MaxFile))
	if n, err = unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b); err != nil {
		return nil, fmt.Errorf("kernel messages: %w", err)
	}
	return b[:n], nil
}

// secrets are all that halo-mesh knows, in each form in which it writes them
// anywhere.
func (m *core) secrets() []string {
	seed, wg := m.id.Key.Seed(), m.id.Key.WireGuard()
	list := []string{m.bundle.Gateway.Seed, m.bundle.Gateway.ClaimCode, m.bundle.Mesh.PSK, m.bundle.Join.Token}
	for _, raw := range [][]byte{seed, wg[:]} {
		list = append(list, base64.StdEncoding.EncodeToString(raw), hex.EncodeToString(raw))
	}
	if code, err := nodecode.New(m.id.Key, m.net, 0); err == nil {
		list = append(list, code)
	}
	if m.keys != nil {
		for _, key := range m.keys.secrets() {
			list = append(list, base64.StdEncoding.EncodeToString(key[:]), hex.EncodeToString(key[:]))
		}
	}
	if m.hidden != nil {
		list = append(list, m.hidden()...)
	}
	return list
}

// codeOf is the device's code of a generation.
func (m *core) codeOf(generation uint32) []string {
	code, err := nodecode.New(m.id.Key, m.net, generation)
	if err != nil {
		return nil
	}
	return []string{code}
}
