package field

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

//go:embed page
var files embed.FS

// policy lets the page load its own style sheet and nothing else.
const policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// handler returns the routes of port 80.
func handler(v *view) (http.Handler, error) {
	page, err := template.New("page.html").Funcs(template.FuncMap{"amount": amount, "reading": reading, "position": position, "age": age}).ParseFS(files, "page/page.html")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	style, err := files.ReadFile("page/style.css")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		if err := page.Execute(&b, v.latest()); err != nil {
			http.Error(w, "the page can't be made", http.StatusInternalServerError)
			return
		}
		send(w, "text/html; charset=utf-8", b.Bytes())
	})
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		send(w, "text/css; charset=utf-8", style)
	})
	mux.HandleFunc("GET /api/diag", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(v.latest())
		if err != nil {
			http.Error(w, "the answer can't be made", http.StatusInternalServerError)
			return
		}
		send(w, "application/json", b)
	})
	mux.Handle("GET /health", v.graph)
	return guard(mux), nil
}

func send(w http.ResponseWriter, kind string, b []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b) // the browser went away: nobody to tell
}

// guard sets what a browser has to keep to, and answers only to names that a
// node has: a page of the internet whose name was turned to this address gets
// nothing.
func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		if !ownHost(r.Host) {
			http.Error(w, "expected an address, localhost or a name below .halo as host", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ownHost tells whether host, with or without a port, may name a node.
func ownHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.ToLower(name)
	return name == "localhost" || strings.HasSuffix(name, ".halo") && len(name) > len(".halo")
}

// reading finds a metric among the latest, as text with its unit.
func reading(st *model.AgentStatus, metric string) string {
	if st != nil {
		for _, r := range st.Readings {
			if r.Metric == metric {
				return amount(r.Value, r.Unit)
			}
		}
	}
	return "–"
}

// position puts into words where the node is, and how well that is known.
func position(g *model.GPSStatus) string {
	state := map[model.GPSState]string{
		model.GPSOff: "GPS is off", model.GPSSearching: "no GPS receiver", model.GPSNoFix: "no GPS fix", model.GPSFix2D: "GPS", model.GPSFix3D: "GPS",
	}[g.State]
	if g.Device != "" {
		state += fmt.Sprintf(", %d of %d satellites", g.Used, g.Seen)
	}
	p := g.Position
	if p == nil {
		return state
	}
	s := fmt.Sprintf("%.5f, %.5f", p.Lat, p.Lon)
	if p.AccuracyM > 0 {
		s += fmt.Sprintf(" ±%.0f m", p.AccuracyM)
	}
	if p.Source == model.PositionStatic {
		s += " (as it was set)"
	}
	return s + "; " + state
}

// amount prints a value for people: large sizes in larger units.
func amount(v float64, unit string) string {
	sizes := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for i, s := range sizes {
		if s == unit {
			for v >= 1024 && i < len(sizes)-1 {
				v, i = v/1024, i+1
			}
			unit = sizes[i]
			break
		}
	}
	switch {
	case unit == "s":
		return (time.Duration(v) * time.Second).String()
	case v == math.Trunc(v):
		return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, unit))
	}
	return strings.TrimSpace(fmt.Sprintf("%.1f %s", v, unit))
}

// age tells how long before now t was.
func age(now time.Time, t *time.Time) string {
	if t == nil || t.IsZero() {
		return "never"
	}
	return now.Sub(*t).Round(time.Second).String() + " ago"
}

// Broken returns what a person should look at first, of all processes.
func (d Diag) Broken() []health.Report {
	var out []health.Report
	for _, r := range d.Health {
		if r.State != health.OK {
			out = append(out, r)
		}
	}
	return out
}

// Good tells whether the state is the one to be in.
func (d Diag) Good() bool { return d.State == Online }
