package client

import (
	"errors"
	"net/http"
	"slices"
	"testing"

	"halo.internal/model/apitype"
)

// A gateway whose answers get lost on the way, or that is still at it, gets the same
// request with the same key again, and no other request twice.
func TestWhatMakesSomethingIsSentAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []int // 0: the connection ends
		typ     string
		want    bool
		asked   int
	}{
		"at once":        {[]int{201}, "", true, 1},
		"lost once":      {[]int{0, 201}, "", true, 2},
		"still at it":    {[]int{0, 409, 201}, apitype.ProblemKeyBusy, true, 3},
		"lost for good":  {[]int{0, 0, 0, 201}, "", false, 3},
		"another exists": {[]int{409, 201}, apitype.ProblemNameTaken, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var keys []string
			api := plain(t, func(w http.ResponseWriter, r *http.Request) {
				status := tc.answers[len(keys)]
				keys = append(keys, r.Header.Get("Idempotency-Key"))
				switch status {
				case 0:
					panic(http.ErrAbortHandler)
				case 201:
					answer(w, status, apitype.User{Username: "olaf"})
				default:
					answer(w, status, apitype.Problem{Type: tc.typ, Status: status})
				}
			}, bearer{"x"})
			u, err := api.CreateUser(t.Context(), apitype.CreateUser{Username: "olaf"})
			if (err == nil) != tc.want || tc.want && u.Username != "olaf" || len(keys) != tc.asked {
				t.Errorf("got %+v, %v after %d requests", u, err, len(keys))
			}
			if len(slices.Compact(slices.Clone(keys))) != 1 || len(keys[0]) < 18 {
				t.Errorf("keys %q", keys)
			}
		})
	}
	asked := 0
	api := plain(t, func(http.ResponseWriter, *http.Request) {
		asked++
		panic(http.ErrAbortHandler)
	}, bearer{"x"})
	_, lost := errors.AsType[*UnreachableError](api.Approve(t.Context(), "n-x"))
	if !lost || asked != 1 {
		t.Errorf("what makes nothing was sent %d times", asked)
	}
}
