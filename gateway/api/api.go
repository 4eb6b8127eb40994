// Package api is the gateway's HTTP API: each route with its types, its
// documentation and what it needs, from which /openapi.json and /docs follow.
// A route is closed unless it says that it is open; errors are RFC 9457
// problems; what changes something is audited.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"halo.internal/gateway/alerts"
	"halo.internal/gateway/audit"
	"halo.internal/gateway/auth"
	"halo.internal/gateway/brain"
	"halo.internal/gateway/cameras"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/commands"
	"halo.internal/gateway/endpoints"
	"halo.internal/gateway/events"
	"halo.internal/gateway/firewall"
	"halo.internal/gateway/hardware"
	"halo.internal/gateway/idempotency"
	"halo.internal/gateway/jobs"
	"halo.internal/gateway/live"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/settings"
	"halo.internal/gateway/speedtest"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/visitors"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
	"halo.internal/model/graph"
	"halo.internal/model/version"
)

// Mesh is what the API asks of halo-mesh.
type Mesh interface {
	// Last returns the last brief status, or false while halo-mesh does not answer.
	Last() (model.MeshStatus, bool)
	// Look has what is to be announced handed over at once.
	Look()
	// Aside tells whether another gateway with this one's key lives, for which this one
	// has stood down.
	Aside() bool
}

// Epoch is the generation of the gateway's knowledge.
type Epoch interface {
	Now() uint64
	// Hear notes an epoch that nodes have heard, and Heard returns the highest of
	// them above Now, or 0.
	Hear(epoch uint64)
	Heard() uint64
	// Raise goes above all of them; RaiseAbove does so unless Now is above that
	// one already.
	Raise(ctx context.Context) (uint64, error)
	RaiseAbove(ctx context.Context, above uint64) (now uint64, raised bool, err error)
}

// Stream is the nodes' WebSocket.
type Stream interface {
	http.Handler
	Disconnect(node string)
}

// Config is what New needs.
type Config struct {
	Log       *slog.Logger
	Health    *health.Graph
	Clock     *clock.Clock
	Config    *store.DB
	Telemetry *telemetry.Store
	Settings  *settings.Store
	Events    *events.Log
	Audit     *audit.Log
	Auth      *auth.Service
	Registry  *registry.Registry
	Brain     *brain.Brain
	Backups   Backups
	Stream    Stream

	Idempotency *idempotency.Keeper
	Live        *live.Hub
	Jobs        *jobs.Engine
	Commands    *commands.Engine
	SpeedTests  *speedtest.Engine
	Mesh        Mesh
	Radios      Radios
	Services    Services
	Topology    Topology

	Firewall  *firewall.Service
	Tables    Tables
	Visitors  *visitors.Service
	Endpoints *endpoints.Book
	Alerts    *alerts.Book
	Cameras   *cameras.Service
	Hardware  *hardware.Book

	Alone     bool // there is no halo-mesh
	Epoch     Epoch
	Bundle    *bundle.Bundle // nil when none was imported
	CA        []byte         // PEM
	CASHA256  string
	Binding   []byte // of the TLS key, for claims
	Boot      uint64 // boot counter
	Claimed   func() // called after the claim
	Changed   func() // called after a change by a person
	Withdrawn func() // called instead where the change took something away from somebody
}

// API is the handler of all routes.
type API struct {
	Config
	mux     *http.ServeMux
	huma    huma.API
	openapi func() ([]byte, error) // as docs, made when it is first asked for: a start does not wait for that
	docs    func() []byte
	can     []string // features
	started time.Time
	rates   rates
	turns   turns
	rooms   rooms
	unheld  bool      // a test asks faster than anybody may
	packers sync.Pool // of gzip.Writers, each of which takes more room than what it packs
	buffers sync.Pool // of *[]byte, in which long answers are written

	reserving sync.Mutex // one change of reservations at a time
	profiling sync.Mutex // one change of the mesh profile at a time
}

// New builds the API.
func New(c Config) *API {
	a := &API{Config: c, mux: http.NewServeMux(), started: c.Clock.Now()}
	// Not huma's DefaultConfig: its document and page are served below, without what loads
	// from elsewhere, and its $schema links would point at routes there are not.
	hc := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "HALO gateway", Version: version.Get().Version,
				Description: "Control plane of a HALO network. Errors are RFC 9457 problems; lists page with limit and cursor.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "An access token from login, or an API token."},
				},
			},
		},
		Formats:                      huma.DefaultFormats,
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	a.huma = humago.New(a.mux, hc)
	a.huma.UseMiddleware(a.guard)

	a.systemRoutes()
	a.meshRoutes()
	a.topologyRoutes()
	a.profileRoutes()
	a.authRoutes()
	a.userRoutes()
	a.doorRoutes()
	a.serviceRoutes()
	a.reservationRoutes()
	a.firewallRoutes()
	a.networkRoutes()
	a.batmanRoutes()
	a.visitorRoutes()
	a.modelRoutes()
	a.alertRoutes()
	a.nodeRoutes()
	a.boardRoutes()
	a.sensorRoutes()
	a.brainRoutes()
	a.telemetryRoutes()
	a.exchangeRoutes()
	a.settingsRoutes()
	a.adminRoutes()
	a.trustRoutes()
	a.logRoutes()
	a.jobRoutes()
	a.commandRoutes()
	a.speedTestRoutes()
	a.backupRoutes()
	a.cameraRoutes()
	a.describeStream()
	a.liveRoute()

	doc := a.huma.OpenAPI()
	finish(doc)
	a.can = featuresOf(doc)
	a.openapi = sync.OnceValues(func() ([]byte, error) { return json.Marshal(doc) })
	a.docs = sync.OnceValue(func() []byte { return renderDocs(doc) })
	return a
}

// OpenAPI returns the document that /openapi.json serves.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// schemaName is huma's own name for a type, but where the API's vocabulary has
// the same one for what it adds something to.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[model.Interface]():
		return "MeshInterface"
	case t == reflect.TypeFor[model.Report]():
		return "NeighbourhoodReport"
	case t.PkgPath() == reflect.TypeFor[graph.Picture]().PkgPath():
		return "Topology" + strings.TrimPrefix(name, "Graph")
	}
	return name
}

// maxBody bounds request bodies: the largest is a join request.
const maxBody = 64 << 10

// call is what a route does: it takes a pointer to its question, and returns one to its
// answer, or nil.
type call func(ctx context.Context, question any) (answer any, err error)

// register adds a route; its question and its answer are pointers. Of generic functions
// there is a program for each type, but one for all pointers; so I and O are those, and what
// they point to is looked up by route.
func register[I, O any](a *API, need access, op huma.Operation, f func(context.Context, I) (O, error)) {
	a.route(need, op, f)
}

// callOf has a function of register's called by what it takes and returns.
func callOf(f reflect.Value) call {
	return func(ctx context.Context, question any) (any, error) {
		r := f.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(question)})
		if !r[1].IsNil() {
			return nil, r[1].Interface().(error)
		}
		if r[0].IsNil() {
			return nil, nil
		}
		return r[0].Interface(), nil
	}
}

// route adds a route; handler is a function as register takes it.
func (a *API) route(need access, op huma.Operation, handler any) {
	h := reflect.ValueOf(handler)
	in, out, f := h.Type().In(1).Elem(), h.Type().Out(0).Elem(), callOf(h)
	op.MaxBodyBytes = maxBody
	op.BodyReadTimeout = 30 * time.Second // links are slow
	op.Metadata = map[string]any{accessKey: need}
	op.Description = need.describe(op.Description)
	if need.closed() {
		op.Security = []map[string][]string{{"bearer": {}}}
	}
	if carriedOutOnce(need, op, out) {
		op.Parameters = append(op.Parameters, keyParameter())
		f = a.withKey(op.OperationID, out, f)
	}
	doc := a.huma.OpenAPI()
	s := shape{usual: http.StatusOK}
	if out != reflect.TypeFor[huma.StreamResponse]() {
		s = shapeOf(out, op)
		s.describe(doc.Components.Schemas, &op, out)
	}
	q := questionOf(doc.Components.Schemas, &op, in)
	describeErrors(doc.Components.Schemas, &op)
	doc.AddOperation(&op)
	a.huma.Adapter().Handle(&op, a.huma.Middlewares().Handler(op.Middlewares.Handler(func(c huma.Context) {
		question := reflect.New(in)
		if p := q.read(a.huma, c, question); p != nil {
			refuse(c, p)
			return
		}
		answer, err := f(c.Context(), question.Interface())
		if err != nil {
			refuse(c, a.problem(c.Context(), op.OperationID, err))
			return
		}
		a.reply(c, s, op.OperationID, answer)
	})))
}

// body is an answer with a JSON body.
type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	b := new(body[T]) // a literal would have a second description of the type in the program
	b.Body = v
	return b, nil
}

// NodePath names a node in a path.
type NodePath struct {
	ID string `path:"id" maxLength:"64" doc:"canonical ID or name"`
}

// nothing is the input of routes without parameters, and the answer of those
// that only do something.
type nothing struct{}

// changed is called by routes after a change that a person made.
func (a *API) changed() {
	if a.Changed != nil {
		a.Changed()
	}
}

// withdrawn is called by routes instead of changed where what was taken away
// must not come back.
func (a *API) withdrawn() {
	if a.Withdrawn != nil {
		a.Withdrawn()
	}
}

// Secure sets what every answer tells browsers. There is no Strict-Transport-Security:
// the gateway has no name that it alone has, its plain HTTP on the overlay and the
// loopback is meant, and the API on other ports than TLS's would be lost to the browser.
func Secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Secure(w.Header())
	answer := &begun{ResponseWriter: w}
	w = answer
	if r.Header.Get("Accept") != "" {
		r.Header.Set("Accept", "application/json") // there is nothing else, and huma's reader of it (v2.37) panics at "a/b;" and the like
	}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p) // the server's own way to end a connection
		}
		a.Log.Error("a request failed badly", "route", r.Pattern, "err", p, "stack", string(debug.Stack()))
		if answer.yes {
			panic(http.ErrAbortHandler) // cut off, so that nobody takes it for whole
		}
		apitype.WriteProblem(w, apitype.Refuse(http.StatusInternalServerError, "", "an internal error; the gateway's log has the reason"))
	}()
	if !ownName(r) {
		apitype.WriteProblem(w, apitype.Refuse(http.StatusMisdirectedRequest, "", "over plain HTTP this gateway answers to its addresses, localhost and names below .halo alone"))
		return
	}
	if _, pattern := a.mux.Handler(r); pattern == "" {
		a.noRoute(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// begun notes whether an answer has begun, behind which no other can be written.
type begun struct {
	http.ResponseWriter
	yes bool
}

// WriteHeader implements http.ResponseWriter.
func (w *begun) WriteHeader(status int) {
	w.yes = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *begun) Write(b []byte) (int, error) {
	w.yes = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController, and for who takes the connection over.
func (w *begun) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// noRoute answers as the mux would, but with a problem.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request) {
	s := &statusOnly{header: http.Header{}}
	a.mux.ServeHTTP(s, r)
	p := apitype.Refuse(http.StatusNotFound, "", "there is no %s; /docs lists the routes", r.URL.Path)
	if s.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", s.header.Get("Allow"))
		p = apitype.Refuse(http.StatusMethodNotAllowed, "", "%s takes %s", r.URL.Path, s.header.Get("Allow"))
	}
	apitype.WriteProblem(w, p)
}

type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
