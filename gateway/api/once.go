package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/idempotency"
)

// carriedOutOnce tells which routes take an Idempotency-Key: every POST of somebody who
// is known, but those whose answer or body is a file. All others are the same when they
// are repeated.
func carriedOutOnce(need access, op huma.Operation, out reflect.Type) bool {
	file := out == reflect.TypeFor[rawAnswer]() || out == reflect.TypeFor[huma.StreamResponse]()
	return op.Method == http.MethodPost && need.closed() && !file && op.RequestBody == nil
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
type keptAnswer struct {
	Target string
	Out    json.RawMessage
}

// withKey has a request with an Idempotency-Key carried out once. Its content is what was
// understood of it: that may be written in another way the next time.
func (a *API) withKey(operation string, out reflect.Type, f call) call {
	return func(ctx context.Context, question any) (any, error) {
		c := callerOf(ctx)
		if c.key == "" {
			return f(ctx, question)
		}
		content, err := json.Marshal(question)
		if err != nil {
			return nil, fmt.Errorf("content of the request: %w", err)
		}
		var first any
		answer, again, err := a.Idempotency.Do(ctx, idempotency.Request{Caller: c.Actor(), Operation: operation, Key: c.key, Body: content}, func(ctx context.Context) ([]byte, error) {
			var err error
			if first, err = f(ctx, question); err != nil {
				return nil, err
			}
			b, err := json.Marshal(first)
			if err != nil {
				return nil, err
			}
			return json.Marshal(keptAnswer{c.target, b})
		})
		if err != nil || !again {
			return first, err
		}
		var kept keptAnswer
		if err := json.Unmarshal(answer, &kept); err != nil {
			return nil, fmt.Errorf("kept answer: %w", err)
		}
		c.target = kept.Target + " (again)" // the audit log has it that nothing was done
		c.answer.Set("Idempotency-Replayed", "true")
		if string(kept.Out) == "null" {
			return nil, nil
		}
		second := reflect.New(out).Interface()
		if err := json.Unmarshal(kept.Out, second); err != nil {
			return nil, fmt.Errorf("kept answer: %w", err)
		}
		return second, nil
	}
}
