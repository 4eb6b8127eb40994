package api

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// problem makes what a client gets of an error. What is not meant for clients
// stays in the log.
func (a *API) problem(ctx context.Context, operation string, err error) *apitype.Problem {
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
