package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

// malformed is how many requests each class of routes gets: HALO_MALFORMED, or few.
func malformed(t *testing.T) int {
	text := os.Getenv("HALO_MALFORMED")
	if text == "" {
		return 100
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HALO_MALFORMED: expected a number from 1, got %q", text)
	}
	return n
}

// TestMalformedRequests sends each class of routes (a tag of the OpenAPI document) requests
// that are wrong in one or more ways: bodies made of the examples, and what is in paths,
// queries and headers. Whatever comes is answered, by a problem where it is refused, and
// never by a 5xx. Mostly an admin sends them, for whom nothing ends at the door.
func TestMalformedRequests(t *testing.T) {
	count := malformed(t)
	f := newFixture(t)
	f.Radios, f.Services, f.Tables, f.Alone = &air{}, &house{}, &kernel{}, false
	f.unheld = true
	newField(f, 2)
	f.joined("mast")
	classes := map[string][]*huma.Operation{}
	for _, item := range f.OpenAPI().Paths {
		for _, op := range operations(item) {
			if op.Method != "" && op.OperationID != "logout" { // which is well-formed whatever it is sent, and ends the test's login
				classes[op.Tags[0]] = append(classes[op.Tags[0]], op)
			}
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	statuses, failed := map[int]int{}, map[string]bool{}
	var logged bytes.Buffer
	f.Log = slog.New(slog.NewTextHandler(&logged, nil))
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		list := classes[class]
		slices.SortFunc(list, func(a, b *huma.Operation) int { return strings.Compare(a.OperationID, b.OperationID) })
		z := fuzzer{rand.New(rand.NewPCG(seed, uint64(len(class))))}
		for n := range count {
			op := list[n%len(list)]
			token := f.token
			if z.one(20) {
				token = z.text()
			}
			r, cancel := z.request(op, token), func() {}
			if op.OperationID == "stream-camera" { // what is well-formed by chance has no end of its own
				var ctx context.Context
				ctx, cancel = context.WithTimeout(r.Context(), 100*time.Millisecond)
				r = r.WithContext(ctx)
			}
			logged.Reset()
			w := recorder{httptest.NewRecorder()}
			body := z.body(op)
			r.Body = io.NopCloser(bytes.NewReader(body))
			f.ServeHTTP(w, r)
			cancel()
			statuses[w.Code]++
			what := fmt.Sprintf("%s %s", r.Method, r.URL)
			if w.Code >= 500 && op.OperationID != "raise-network-epoch" { // which needs a halo-mesh
				if !failed[op.OperationID] {
					t.Errorf("%s: got %d: %s\n%s\n%.1000v\n%.300q", what, w.Code, w.Body, logged.String(), r.Header, body)
				}
				failed[op.OperationID] = true
			}
			var p apitype.Problem
			if w.Code >= 400 {
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || w.Header().Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s: expected a problem, got %d %s %q, %v", what, w.Code, w.Header().Get("Content-Type"), w.Body, err)
				}
			}
		}
	}
	t.Logf("%d classes, statuses %v", len(classes), statuses)
	if statuses[http.StatusUnprocessableEntity]+statuses[http.StatusBadRequest]+statuses[http.StatusNotFound] < count {
		t.Error("that is next to nothing malformed: the test proves nothing")
	}
}

// fuzzer makes requests that are wrong.
type fuzzer struct{ *rand.Rand }

// one is true once in so many times.
func (z fuzzer) one(in int) bool { return z.IntN(in) == 0 }

// oddities are values that some program has fallen over.
var oddities = []string{
	"", " ", "x", "0", "-1", "1", "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e400", "NaN", "Infinity", "0x10", "1_000", "٣", "1.5", "true", "null",
	"2026-11-29T14:03:00Z", "2026-02-30T25:61:61Z", "0000-00-00T00:00:00Z", "9999999-01-01T00:00:00Z", "-24h", "1ns", "9999999h",
	"../../etc/passwd", "..", ".", "/", "//", "a/b", "%", "%00", "%zz", "\x00", "\r\nX: y", "\xff\xfe", "\u202e", "é", "𝄞", "'; DROP TABLE nodes; --", "\"", "\\", "<script>", "${x}", "{{x}}", "%s%n",
	"*", "W/\"1\"", "\"", "\"1\", \"2\"", "n-aaaaaaaaaaaaaaaaaaaa", "mast", "root", "02:00:00:00:00:01", "10.42.0.1", "::1", "fd00::/8",
}

func (z fuzzer) text() string {
	switch z.IntN(5) {
	case 0:
		return strings.Repeat(oddities[z.IntN(len(oddities))]+"a", 1+z.IntN(400))
	case 1:
		b := make([]byte, z.IntN(40))
		for i := range b {
			b[i] = byte(z.Uint32())
		}
		return string(b)
	}
	return oddities[z.IntN(len(oddities))]
}

// recorder takes answers, and deadlines as a connection does.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// request makes one for an operation, without its body.
func (z fuzzer) request(op *huma.Operation, token string) *http.Request {
	u := url.URL{Scheme: "http", Host: "127.0.0.1"}
	var parts []string
	for part := range strings.SplitSeq(op.Path, "/") {
		if strings.HasPrefix(part, "{") {
			if part = z.text(); part == "" || part == "." || part == ".." { // those are other paths
				part = "x"
			}
		}
		parts = append(parts, url.PathEscape(part))
	}
	q := url.Values{}
	header := http.Header{}
	for _, p := range op.Parameters {
		switch {
		case p.In == "query" && z.one(2):
			q.Add(p.Name, z.text())
			if z.one(5) {
				q.Add(p.Name, z.text())
			}
		case p.In == "header" && z.one(2):
			header.Set(p.Name, z.text())
		}
	}
	if z.one(10) {
		q.Add(z.text(), z.text())
	}
	raw := q.Encode()
	if z.one(10) {
		raw = strings.NewReplacer("%", "%%", "=", "==").Replace(raw)
	}
	if op.RequestBody != nil || z.one(20) {
		header.Set("Content-Type", "application/json")
	}
	if z.one(10) {
		header.Set("Content-Type", z.text())
	}
	for _, name := range []string{"Accept", "Accept-Encoding", "If-Match", "If-None-Match", "Idempotency-Key", "Range", "Upgrade"} {
		if z.one(8) {
			header.Set(name, z.text())
		}
	}
	header.Set("Authorization", "Bearer "+token)
	for k, values := range header { // others are no HTTP: the server never sees them
		for i := range values {
			values[i] = strings.TrimSpace(strings.Map(func(c rune) rune {
				if c < ' ' || c == 0x7f {
					return -1
				}
				return c
			}, values[i]))
		}
		header[k] = values
	}
	r := httptest.NewRequest(op.Method, "http://127.0.0.1/", nil)
	u.Path, u.RawPath, u.RawQuery = strings.Join(parts, "/"), strings.Join(parts, "/"), raw
	if path, err := url.PathUnescape(u.RawPath); err == nil {
		u.Path = path
	}
	r.URL, r.RequestURI, r.Header = &u, u.RequestURI(), header
	r.RemoteAddr = "127.0.0.1:4711"
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}))
}

// body is mostly an example in which something is wrong.
func (z fuzzer) body(op *huma.Operation) []byte {
	var example any
	if op.RequestBody != nil {
		for _, m := range op.RequestBody.Content {
			if b, err := json.Marshal(m.Example); err == nil {
				_ = json.Unmarshal(b, &example) // what has none is nil
			}
		}
	}
	if example == nil && !z.one(4) {
		return nil
	}
	for range 1 + z.IntN(3) {
		example = z.bend(example)
	}
	b, err := json.Marshal(example)
	if err != nil {
		return []byte("{")
	}
	switch z.IntN(12) {
	case 0:
		return b[:z.IntN(len(b)+1)]
	case 1:
		if len(b) > 0 {
			b[z.IntN(len(b))] = byte(z.Uint32())
		}
	case 2:
		return slices.Concat(b, []byte(z.text()))
	case 3:
		return []byte(strings.Repeat("[", 1+z.IntN(20_000)))
	case 4:
		return []byte(strings.Repeat(`{"a":`, 1+z.IntN(5_000)))
	case 5:
		return nil
	}
	return b
}

// bend changes something of a value.
func (z fuzzer) bend(v any) any {
	if z.one(3) {
		return z.value()
	}
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 || z.one(6) {
			v[z.text()] = z.value()
			return v
		}
		keys := slices.Sorted(maps.Keys(v))
		k := keys[z.IntN(len(keys))]
		if z.one(5) {
			delete(v, k)
		} else {
			v[k] = z.bend(v[k])
		}
		return v
	case []any:
		if len(v) == 0 || z.one(4) {
			return append(v, z.value())
		}
		if z.one(6) {
			return slices.Repeat(v, 1+z.IntN(300))
		}
		i := z.IntN(len(v))
		v[i] = z.bend(v[i])
		return v
	}
	return z.value()
}

func (z fuzzer) value() any {
	switch z.IntN(9) {
	case 0:
		return nil
	case 1:
		return z.one(2)
	case 2:
		return json.Number(strconv.FormatInt(int64(z.Uint64()), 10))
	case 3:
		return json.Number("1" + strings.Repeat("0", z.IntN(400)))
	case 4:
		return -1
	case 5:
		return []any{}
	case 6:
		return map[string]any{}
	}
	return z.text()
}

// What is left out of a body is what its type says it is then.
func TestDefaultsOfABody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var token apitype.JoinToken
	f.want(http.StatusCreated, "POST", "/v1/admin/join-tokens", map[string]any{}, &token)
	if token.Uses != 1 {
		t.Errorf("got %+v, want one use", token)
	}
}
