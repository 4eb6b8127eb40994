package idempotency

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/identity"
	"halo.internal/model/apitype"
)

var build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

type fixture struct {
	*Keeper
	t    *testing.T
	path string
	db   *store.DB
	key  identity.Key
	now  time.Time
	done int // requests carried out
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "config.db"), key: identity.New(), now: build.Add(24 * time.Hour)}
	storetest.PutConfig(t, f.path)
	db, _, err := store.OpenConfig(t.Context(), f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f.db = db
	f.restart()
	return f
}

func (f *fixture) restart() {
	f.t.Helper()
	k, err := New(f.db, clock.New(func() time.Time { return f.now }, build), f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Keeper = k
}

// work writes something, and answers with the number of the request that did.
func (f *fixture) work(ctx context.Context) ([]byte, error) {
	err := f.db.Write(ctx, func(tx *sql.Tx) error {
		return store.PutSetting(ctx, tx, fmt.Sprint("work ", f.done), []byte("done"))
	})
	f.done++
	return fmt.Appendf(nil, "answer %d", f.done), err
}

func request(n int) Request {
	return Request{Caller: "user:root", Operation: "create-user", Key: fmt.Sprintf("a-key-of-a-client-%d", n), Body: []byte(`{"name":"olaf"}`)}
}

func (f *fixture) do(r Request, want string, again bool) {
	f.t.Helper()
	if got, a, err := f.Do(f.t.Context(), r, f.work); err != nil || string(got) != want || a != again {
		f.t.Errorf("got %q, again %v, %v; want %q, again %v", got, a, err, want, again)
	}
}

func (f *fixture) refused(r Request, typ string) {
	f.t.Helper()
	_, _, err := f.Do(f.t.Context(), r, f.work)
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Type != typ {
		f.t.Errorf("got %v, want the problem %s", err, typ)
	}
}

func (f *fixture) rows() (n int) {
	f.t.Helper()
	if err := f.db.Read().QueryRow(`SELECT count(*) FROM idempotency`).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func TestARequestIsCarriedOutOnce(t *testing.T) {
	f := newFixture(t)
	f.do(request(1), "answer 1", false)
	f.do(request(1), "answer 1", true)
	f.restart()
	f.do(request(1), "answer 1", true)

	other := request(1)
	other.Body = []byte(`{"name":"vera"}`)
	f.refused(other, apitype.ProblemKeyReused)
	for i, r := range []Request{request(2), {"user:vera", "create-user", request(1).Key, request(1).Body}, {"user:root", "create-neuron", request(1).Key, request(1).Body}} {
		f.do(r, fmt.Sprint("answer ", i+2), false) // another key, caller, operation
	}
	// Another gateway, as whose a copy of the database is opened, knows no key of it.
	f.key = identity.New()
	f.restart()
	f.do(request(1), "answer 5", false)
}

func TestWhatFailsMayBeTriedAgain(t *testing.T) {
	f := newFixture(t)
	boom := errors.New("boom")
	for _, wrote := range []bool{false, true} {
		_, _, err := f.Do(t.Context(), request(1), func(ctx context.Context) ([]byte, error) {
			if wrote {
				_, err := f.work(ctx)
				return nil, errors.Join(err, boom)
			}
			return nil, boom
		})
		if !errors.Is(err, boom) || f.rows() != 0 {
			t.Errorf("wrote %v: %v, %d are kept", wrote, err, f.rows())
		}
	}
	f.do(request(1), "answer 2", false)
}

// A power cut between what a request did and its answer.
func TestAnAnswerThatWasLost(t *testing.T) {
	f := newFixture(t)
	func() {
		defer func() { _ = recover() }()
		_, _, _ = f.Do(t.Context(), request(1), func(ctx context.Context) ([]byte, error) {
			_, _ = f.work(ctx)
			panic("the power is gone")
		})
	}()
	f.restart()
	f.refused(request(1), apitype.ProblemKeyLost)
	if f.done != 1 {
		t.Errorf("carried out %d times", f.done)
	}
	long := func(ctx context.Context) ([]byte, error) {
		_, err := f.work(ctx)
		return make([]byte, maxAnswer+1), err
	}
	if got, _, err := f.Do(t.Context(), request(2), long); err != nil || len(got) != maxAnswer+1 {
		t.Errorf("a long answer: %d octets, %v", len(got), err)
	}
	f.refused(request(2), apitype.ProblemKeyLost)
}

// What writes nothing is noted with its answer.
func TestARequestThatWritesNothing(t *testing.T) {
	f := newFixture(t)
	for _, long := range []int{1, maxAnswer + 1} {
		r := request(long)
		if _, _, err := f.Do(t.Context(), r, func(context.Context) ([]byte, error) { return make([]byte, long), nil }); err != nil {
			t.Fatal(err)
		}
		got, again, err := f.Do(t.Context(), r, f.work)
		if p, lost := errors.AsType[*apitype.Problem](err); long > maxAnswer && (!lost || p.Type != apitype.ProblemKeyLost) || long == 1 && (err != nil || !again || len(got) != 1) {
			t.Errorf("%d octets: got %q, again %v, %v", long, got, again, err)
		}
	}
	if f.done != 0 {
		t.Errorf("carried out %d times more", f.done)
	}
}

func TestTheSameKeyTwiceAtOnce(t *testing.T) {
	f := newFixture(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := f.Do(t.Context(), request(1), func(ctx context.Context) ([]byte, error) {
			close(begun)
			<-goOn
			return f.work(ctx)
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	f.refused(request(1), apitype.ProblemKeyBusy)
	close(goOn)
	wg.Wait()
	f.do(request(1), "answer 1", true)
}

func TestKeysAreForgotten(t *testing.T) {
	for _, step := range []time.Duration{life + time.Second, -life - time.Second} {
		f := newFixture(t)
		f.now = build.Add(10 * life)
		f.do(request(1), "answer 1", false)
		f.now = f.now.Add(step)
		f.do(request(1), "answer 2", false)
		f.now = f.now.Add(step / 2)
		f.do(request(1), "answer 2", true)
		f.now = f.now.Add(step)
		f.do(request(2), "answer 3", false)
		if n := f.rows(); n != 1 {
			t.Errorf("%v: %d are kept, want 1", step, n)
		}
	}
}

func TestKeptAnswersAreBounded(t *testing.T) {
	f := newFixture(t)
	for i := range maxOfOne + 5 {
		f.now = f.now.Add(time.Second)
		f.do(request(i), fmt.Sprint("answer ", i+1), false)
	}
	if n := f.rows(); n != maxOfOne {
		t.Errorf("%d of one caller are kept, want %d", n, maxOfOne)
	}
	f.do(request(5), "answer 6", true)
	for i := range maxKept {
		f.now = f.now.Add(time.Second)
		r := request(i)
		r.Caller = fmt.Sprint("token:", i)
		f.do(r, fmt.Sprint("answer ", maxOfOne+6+i), false)
	}
	if n := f.rows(); n != maxKept {
		t.Errorf("%d are kept, want %d", n, maxKept)
	}
}

func TestNothingSecretIsInTheDatabase(t *testing.T) {
	f := newFixture(t)
	r := request(1)
	r.Body = []byte(`{"password":"a-secret-that-was-sent"}`)
	if _, _, err := f.Do(t.Context(), r, func(ctx context.Context) ([]byte, error) {
		_, err := f.work(ctx)
		return []byte("halo-api-a-secret-that-was-given"), err
	}); err != nil {
		t.Fatal(err)
	}
	if got, again, err := f.Do(t.Context(), r, f.work); err != nil || !again || string(got) != "halo-api-a-secret-that-was-given" {
		t.Fatalf("got %q, again %v, %v", got, again, err)
	}
	var all []byte
	for _, s := range []string{"", "-wal"} {
		b, err := os.ReadFile(f.path + s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if !bytes.Contains(all, []byte("user:root")) {
		t.Fatal("the database was not read")
	}
	for _, secret := range []string{"a-secret-that", r.Key, "halo-api"} {
		if bytes.Contains(all, []byte(secret)) {
			t.Errorf("%q is in the database", secret)
		}
	}
}

func TestParse(t *testing.T) {
	const uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324"
	for field, want := range map[string]string{
		"": "", uuid: uuid, `"` + uuid + `"`: uuid,
		"short": "refused", `"short"`: "refused", `""`: "refused", `"` + uuid: "refused", uuid + ", " + uuid: "refused", uuid + " x": "refused", strings.Repeat("x", maxKey+1): "refused",
		strings.Repeat("x", maxKey): strings.Repeat("x", maxKey), "a\\b" + uuid: "refused", "ä" + uuid: "refused", "\x00" + uuid: "refused",
	} {
		got, err := Parse(field)
		if want == "refused" {
			if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != 400 {
				t.Errorf("%q: got %q, %v, want 400", field, got, err)
			}
		} else if got != want || err != nil {
			t.Errorf("%q: got %q, %v", field, got, err)
		}
	}
}
