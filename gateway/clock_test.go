package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// TestTheClockOfARunningGatewayIsSet back by a year and ahead by decades, while readings
// and logins come: nothing that was acknowledged or kept is lost, whoever had a login has
// one when the clock is right again, and all goes on at its pace.
func TestTheClockOfARunningGatewayIsSet(t *testing.T) {
	t.Parallel()
	dir, run, plain := t.TempDir(), t.TempDir(), freeAddress(t)
	var step atomic.Int64
	c := Board(slog.New(slog.DiscardHandler))
	c.State, c.Identity, c.Socket, c.Mesh = paths.Dir(dir), filepath.Join(run, "identity.json"), filepath.Join(run, "gateway.sock"), filepath.Join(run, "mesh.sock")
	c.Plain, c.TLS, c.Every, c.Poll = []string{plain}, nil, time.Millisecond, 50*time.Millisecond
	// The true time is late enough that a year before is after the build.
	truly := func() time.Time { return time.Now().AddDate(2, 0, 0) }
	c.Now = func() time.Time { return truly().Add(time.Duration(step.Load())) }
	identify(t, c, identity.State{Key: identity.New(), BootCounter: 9, BootID: "b"})
	halomesh := &mesh{} // whose clock is GPS's
	halomesh.serve(t, c.Mesh)
	stop := start(t, c)
	api := newClient(t, "http://"+plain)
	api.ready()
	var code string
	eventually(t, "the claim code", func() error {
		halomesh.mu.Lock()
		defer halomesh.mu.Unlock()
		if code = halomesh.code; code == "" {
			return errors.New("halo-mesh does not show it")
		}
		return nil
	})
	api.claim(code)
	login := func() apitype.Tokens {
		t.Helper()
		var tokens apitype.Tokens
		api.must("POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: password}, &tokens)
		return tokens
	}
	early := login()
	api.jwt = early.AccessToken
	eventually(t, "the clock is known", func() error {
		var info apitype.SystemInfo
		if _, err := api.do("GET", "/v1/system/info", nil, &info); err != nil || info.Clock != model.ClockGPS {
			return fmt.Errorf("it is %q, %v", info.Clock, err)
		}
		return nil
	})
	var gateway apitype.SystemInfo
	api.must("GET", "/v1/system/info", nil, &gateway)

	// Readings come by an import, which commits as the stream does, and what was a year ago
	// is in its file.
	stored := map[time.Time]bool{}
	put := func(at time.Time) {
		t.Helper()
		at = at.UTC().Truncate(time.Second)
		body := fmt.Sprintf("time,node,metric,unit,value\n%s,%s,test.step.value,,%d\n", at.Format(time.RFC3339), gateway.Node, len(stored))
		status, answer := api.raw("POST", "/v1/telemetry/import?format=csv", "text/csv", api.jwt, []byte(body))
		if status != http.StatusOK {
			t.Fatalf("import at %v: %d %s", at, status, answer)
		}
		stored[at] = true
	}
	right := truly()
	for months := range 13 {
		put(right.AddDate(0, -months, 0))
	}
	whole := func(what string) {
		t.Helper()
		eventually(t, what+": all readings are there", func() error {
			var l apitype.SampleList
			path := fmt.Sprintf("/v1/nodes/%s/telemetry/range?metric=test.step.&limit=500&from=%s&to=%s", gateway.Node, right.AddDate(-3, 0, 0).UTC().Format(time.RFC3339), right.AddDate(60, 0, 0).UTC().Format(time.RFC3339))
			if _, err := api.do("GET", path, nil, &l); err != nil {
				return err
			}
			there := map[time.Time]bool{}
			for _, s := range l.Items {
				there[s.Time.UTC()] = true
			}
			for at := range stored {
				if !there[at] {
					return fmt.Errorf("the one of %v of %d is not", at, len(stored))
				}
			}
			return nil
		})
	}
	// A change of the settings has the telemetry tended at once, and not in an hour.
	budget := int64(512 << 20)
	tended := func() (n float64, err error) {
		status, text := api.raw("GET", "/metrics", "", api.jwt, nil)
		if _, after, ok := strings.Cut(string(text), "\ngateway_telemetry_tended_total "); ok {
			_, err = fmt.Sscan(after, &n)
			return n, err
		}
		return 0, fmt.Errorf("metrics: %d %s", status, text)
	}
	tend := func() {
		t.Helper()
		for range 2 { // the first to end may have begun before
			before, err := tended()
			if err != nil {
				t.Fatal(err)
			}
			budget++
			api.must("PATCH", "/v1/settings", map[string]any{"telemetry": map[string]any{"budget_bytes": budget}}, nil)
			eventually(t, "the telemetry is tended", func() error {
				if n, err := tended(); err != nil || n <= before {
					return fmt.Errorf("%v times, as before: %v", n, err)
				}
				return nil
			})
		}
	}
	whole("before")
	events := func() (n int) {
		t.Helper()
		var l apitype.EventList
		api.must("GET", "/v1/events?limit=500", nil, &l)
		return len(l.Items)
	}
	kept := events()
	for _, s := range []struct {
		what  string
		years int
	}{{"a year back", -1}, {"decades ahead", 25}} {
		at := truly()
		put(at)
		step.Store(int64(at.AddDate(s.years, 0, 0).Sub(at)))
		if status, err := api.do("GET", "/v1/nodes", nil, nil); status != http.StatusUnauthorized {
			t.Errorf("%s: an access token of before: %d, %v", s.what, status, err)
		}
		api.jwt = login().AccessToken
		put(truly()) // of who knows better
		put(c.Now()) // of who goes by the gateway
		for range 3 {
			tend()
		}
		whole(s.what)
		var info apitype.SystemInfo
		if api.must("GET", "/v1/system/info", nil, &info); info.Time.Sub(c.Now()).Abs() > time.Minute {
			t.Errorf("%s: the gateway says that it is %v", s.what, info.Time)
		}
		// Timers go on: an event comes into the log, and the health is what it was.
		api.must("POST", "/v1/network/epoch/raise", nil, nil)
		eventually(t, s.what+": an event is written", func() error {
			if n := events(); n <= kept {
				return fmt.Errorf("there are %d, as before", n)
			}
			return nil
		})
		kept = events()
		if r, err := api.health(); err != nil || r.State == health.Failed {
			t.Errorf("%s: health says %+v, %v", s.what, r, err)
		}
		late := login()
		step.Store(0)
		if s.years > 0 {
			if status, err := newClientAs(t, api, late.AccessToken).do("GET", "/v1/nodes", nil, nil); status != http.StatusUnauthorized {
				t.Errorf("%s: an access token of then is good still: %d, %v", s.what, status, err)
			}
		}
		api.jwt = early.AccessToken
		whole(s.what + ", and right again, with the login of before")
		tend()
		whole(s.what + ", and right again, and tended")
		if n := events(); n < kept {
			t.Errorf("%s: of %d events %d are left", s.what, kept, n)
		}
	}
	stop()
	start(t, c)
	api.ready()
	whole("after a restart")
	var again apitype.Tokens
	api.must("POST", "/api/auth/refresh", apitype.RefreshRequest{RefreshToken: early.RefreshToken}, &again)
}

// newClientAs is a client with another token.
func newClientAs(t *testing.T, c *client, jwt string) *client {
	n := newClient(t, c.base)
	n.jwt = jwt
	return n
}
