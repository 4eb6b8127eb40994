package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/telemetry/format"
	"halo.internal/model/apitype"
)

const (
	exchangePatience = 2 * time.Minute // for the next part of a file of any length: links are slow
	importLongest    = time.Hour
	maxImport        = 256 << 20 // octets
	maxUnknown       = 20        // nodes that are named
)

func (a *API) exchangeRoutes() {
	tags := []string{"telemetry"}
	files := map[string]*huma.MediaType{}
	for _, f := range []format.Format{format.CSV, format.NDJSON, format.Prometheus, format.OpenMetrics} {
		files[f.ContentType()] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	register(a, scope(apitype.ScopeTelemetryRead), huma.Operation{
		OperationID: "export-telemetry", Method: http.MethodGet, Path: "/v1/telemetry/export", Tags: tags,
		Summary: "Readings as they were made, as a file",
		Description: "Of any size: it is written as it is read. What fails in the middle ends the connection. What was thinned is not among them. " +
			"prometheus is its text format with times in milliseconds, openmetrics what promtool makes blocks of.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: files}},
	}, func(ctx context.Context, i *struct {
		Selection
		Span
		Format format.Format `query:"format" enum:"csv,ndjson,prometheus,openmetrics" default:"csv"`
	}) (*huma.StreamResponse, error) {
		i.settle(a.Clock.Now())
		sel := format.Selection{Metrics: i.Metric, From: i.From, To: i.To}
		var err error
		if sel.Names, err = a.nodeNames(ctx); err != nil {
			return nil, err
		}
		if sel.Nodes, err = a.nodeIDs(ctx, i.Node); err != nil {
			return nil, err
		}
		if len(i.Node) == 0 {
			sel.Nodes = a.Telemetry.Nodes()
		}
		return &huma.StreamResponse{Body: func(c huma.Context) { a.export(c, i.Format, sel) }}, nil
	})
	register(a, admin, huma.Operation{
		OperationID: "import-telemetry", Method: http.MethodPost, Path: "/v1/telemetry/import", Tags: tags,
		Summary: "Take in readings from a file, such as an export has made",
		Description: "Each reading once: the same file may be sent again. They do not become latest values, and nothing is given up for them. " +
			"422: a line is not of the format, and the readings before it are stored. 409: the gateway's clock is a guess. At most 256 MiB.",
		RequestBody: &huma.RequestBody{Required: true, Content: files},
	}, func(ctx context.Context, i *struct {
		Upload
		Format format.Format `query:"format" required:"true" enum:"csv,ndjson,prometheus,openmetrics"`
	}) (*body[apitype.Import], error) {
		callerOf(ctx).target = string(i.Format)
		return answer(a.importFile(ctx, i.file, i.Format))
	})
	register(a, scope(apitype.ScopeTelemetryRead), huma.Operation{
		OperationID: "get-metrics", Method: http.MethodGet, Path: "/metrics", Tags: tags,
		Summary:     "Latest values of all nodes, and the gateway's own, for Prometheus",
		Description: "Text format 0.0.4. Values older than ten minutes are left out. Prometheus sends the API token that it is given as authorization.credentials.",
		Responses:   map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{format.Prometheus.ContentType(): files[format.Prometheus.ContentType()]}}},
	}, func(ctx context.Context, _ *nothing) (*rawAnswer, error) {
		text, err := a.metricsText(ctx)
		if err != nil {
			return nil, err
		}
		return &rawAnswer{ContentType: format.Prometheus.ContentType(), Body: text}, nil
	})
}

// nodeNames returns the names of all nodes by their IDs.
func (a *API) nodeNames(ctx context.Context) (map[string]string, error) {
	names := map[string]string{}
	for cursor := ""; ; {
		list, err := a.Registry.Nodes(ctx, cursor, 500)
		if err != nil {
			return nil, err
		}
		for _, n := range list.Items {
			names[n.ID] = n.Name
		}
		if cursor = list.Next; cursor == "" {
			return names, nil
		}
	}
}

// export writes a file, with time enough for each part of it. What fails before its first
// part is a problem; later the connection ends without its last one.
func (a *API) export(c huma.Context, f format.Format, sel format.Selection) {
	_, w := humago.Unwrap(c)
	file := &patientWriter{w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", f.ContentType())
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="telemetry-%s.%s"`, sel.From.UTC().Format("20060102T150405Z"), extension(f)))
	err := format.Write(c.Context(), file, f, inTurns{a, a.Telemetry}, sel)
	switch {
	case err == nil:
	case file.begun:
		a.Log.Warn("an export was not finished", "err", err)
		panic(http.ErrAbortHandler)
	default:
		w.Header().Del("Content-Disposition")
		apitype.WriteProblem(w, a.problem(c.Context(), "export-telemetry", err))
	}
}

func extension(f format.Format) string {
	switch f {
	case format.Prometheus:
		return "prom"
	case format.OpenMetrics:
		return "txt"
	}
	return string(f)
}

// patientWriter gives each part its own time.
type patientWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(exchangePatience)); err != nil {
		return 0, err
	}
	p.begun = true
	return p.w.Write(b)
}

// Upload is the body of a request, read as it comes.
type Upload struct{ file io.Reader }

// Resolve implements huma.Resolver: huma itself would read all of it first.
func (u *Upload) Resolve(c huma.Context) []error {
	r, w := humago.Unwrap(c)
	u.file = &patientReader{r: http.MaxBytesReader(w, r.Body, maxImport), control: http.NewResponseController(w), end: time.Now().Add(importLongest)}
	return nil
}

var _ huma.Resolver = (*Upload)(nil)

// patientReader gives each part its own time, until all have taken too long; zero end:
// however long they take.
type patientReader struct {
	r       io.Reader
	control *http.ResponseController
	end     time.Time
}

func (p *patientReader) Read(b []byte) (int, error) {
	next := time.Now().Add(exchangePatience)
	if !p.end.IsZero() && next.After(p.end) {
		next = p.end
	}
	if err := errors.Join(p.control.SetReadDeadline(next), p.control.SetWriteDeadline(next.Add(exchangePatience))); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	if err != nil && err != io.EOF {
		err = &cutError{err}
	}
	return n, err
}

// cutError is why a file did not come to its end.
type cutError struct{ error }

func (e *cutError) Unwrap() error { return e.error }

// importFile takes in what a file has, part by part.
func (a *API) importFile(ctx context.Context, file io.Reader, f format.Format) (res apitype.Import, err error) {
	names, err := a.nodeNames(ctx)
	if err != nil {
		return res, err
	}
	ids := map[string]string{}
	for id, name := range names {
		ids[name] = id
	}
	for id := range names { // which goes before another's name
		ids[id] = id
	}
	unknown := map[string]bool{}
	part := make([]telemetry.Imported, 0, telemetry.MaxImport)
	kept := context.WithoutCancel(ctx) // what came is taken in, also when the client has gone
	flush := func() error {
		did, err := a.Telemetry.Import(kept, part)
		res.Stored, res.Duplicate, res.Summarised = res.Stored+did.Stored, res.Duplicate+did.Duplicate, res.Summarised+did.Summarised
		res.Misdated, res.Refused, res.Crowded = res.Misdated+did.Misdated, res.Refused+did.Refused, res.Crowded+did.Crowded
		part = part[:0]
		return err
	}
	err = format.Read(file, f, func(r telemetry.Imported) error {
		res.Readings++
		id, known := ids[r.Node]
		if !known {
			res.Unknown++
			if len(unknown) < maxUnknown && !unknown[r.Node] {
				unknown[r.Node] = true
				res.Nodes = append(res.Nodes, r.Node)
			}
			return nil
		}
		r.Node = id
		if part = append(part, r); len(part) == cap(part) {
			return flush()
		}
		return nil
	})
	syntax, wrong := errors.AsType[*format.SyntaxError](err)
	_, cut := errors.AsType[*cutError](err)
	if err == nil || wrong || cut { // what came is taken in
		if err := flush(); err != nil {
			return res, importProblem(err)
		}
	}
	if wrong {
		return res, apitype.Refuse(http.StatusUnprocessableEntity, "", "%v; of %d readings before it %d were stored", syntax, res.Readings, res.Stored)
	}
	return res, importProblem(err)
}

func importProblem(err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return apitype.Refuse(http.StatusRequestEntityTooLarge, "", "expected at most %d octets: send the file in parts; what came is stored", tooLarge.Limit)
	}
	if errors.Is(err, telemetry.ErrClock) {
		return apitype.Refuse(http.StatusConflict, apitype.ProblemClockUnsure, "the gateway's clock is a guess, and whether readings are too old cannot be told: log in from a device that knows the time")
	}
	if cut, ok := errors.AsType[*cutError](err); ok {
		return apitype.Refuse(http.StatusRequestTimeout, "", "the file ended before its time: %v; what came is stored", cut)
	}
	return err
}
