package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/idempotency"
)

// carriedOutOnce tells which routes take an Idempotency-Key: every POST of somebody who
// is known, but those whose answer or body is a file. All others are the same when they
// are repeated.
func carriedOutOnce[O any](need access, op huma.Operation) bool {
	switch any((*O)(nil)).(type) {
	case *rawAnswer, *huma.StreamResponse:
		return false
	}
	return op.Method == http.MethodPost && need.closed() && op.RequestBody == nil
}

func keyParameter() *huma.Param {
	short, long := 16, 128
	return &huma.Param{
		Name: "Idempotency-Key", In: "header", Example: "8e03978e-40d5-43dd-bc93-6894a57f9324",
		Description: "For a request that may have to be sent again: with the same key and the same content it is carried out once, and gets the same answer for a day",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: &short, MaxLength: &long},
	}
}

// keptAnswer is what is kept of a request that was carried out.
type keptAnswer[O any] struct {
	Target string
	Out    *O
}

// withKey has a request with an Idempotency-Key carried out once. Its content is what was
// understood of it: that may be written in another way the next time.
func withKey[I, O any](a *API, operation string, f func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		c := callerOf(ctx)
		if c.key == "" {
			return f(ctx, in)
		}
		content, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("content of the request: %w", err)
		}
		var out *O
		answer, again, err := a.Idempotency.Do(ctx, idempotency.Request{Caller: c.Actor(), Operation: operation, Key: c.key, Body: content}, func(ctx context.Context) ([]byte, error) {
			var err error
			if out, err = f(ctx, in); err != nil {
				return nil, err
			}
			return json.Marshal(keptAnswer[O]{c.target, out})
		})
		if err != nil || !again {
			return out, err
		}
		var kept keptAnswer[O]
		if err := json.Unmarshal(answer, &kept); err != nil {
			return nil, fmt.Errorf("kept answer: %w", err)
		}
		c.target = kept.Target + " (again)" // the audit log has it that nothing was done
		c.answer.Set("Idempotency-Replayed", "true")
		return kept.Out, nil
	}
}
