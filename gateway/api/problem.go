package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// problem makes what a client gets of an error. What is not meant for clients
// stays in the log.
func (a *API) problem(ctx context.Context, operation string, err error) error {
	if p, ok := errors.AsType[*apitype.Problem](err); ok {
		return p
	}
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) {
		return apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemStore, "the gateway cannot store or read now: its database is locked or its disk is full; /health says more").After(5 * time.Second)
	}
	if ctx.Err() != nil {
		return apitype.Refuse(http.StatusServiceUnavailable, "", "the request was given up").After(time.Second)
	}
	a.Log.Error("a request failed", "operation", operation, "err", err)
	return apitype.Refuse(http.StatusInternalServerError, "", "an internal error; the gateway's log has the reason")
}

func writeProblem(w http.ResponseWriter, p *apitype.Problem) {
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client went away: nobody to tell
}

// toProblem turns huma's own errors into ours. Theirs repeat the values that
// were wrong; one of them may be a password.
func toProblem(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := apitype.Refuse(e.Status, "", "%s", e.Detail)
	for _, d := range e.Errors {
		if d != nil {
			p.Errors = append(p.Errors, apitype.Detail{Message: d.Message, Location: d.Location})
		}
	}
	return p, nil
}

// useProblems documents our problem where huma put its own error.
func useProblems(doc *huma.OpenAPI) {
	ref := doc.Components.Schemas.Schema(reflect.TypeFor[apitype.Problem](), true, "Problem")
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			for code, r := range op.Responses {
				if strings.HasPrefix(code, "1") || strings.HasPrefix(code, "2") || r.Content == nil {
					continue
				}
				r.Content = map[string]*huma.MediaType{"application/problem+json": {Schema: ref}}
			}
		}
	}
	schemas := doc.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
}
