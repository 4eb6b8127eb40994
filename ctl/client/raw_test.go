package client

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestRawRequests go out as they were written, once, and are not sent elsewhere.
func TestRawRequests(t *testing.T) {
	var seen []string
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = append(seen, fmt.Sprint(r.Method, " ", r.RequestURI, " ", string(b), r.Header["If-Match"], r.Header["Idempotency-Key"]))
		switch r.URL.Path {
		case "/v1/there":
			http.Redirect(w, r, "/v1/elsewhere", http.StatusFound)
		case "/v1/endless":
			fmt.Fprintf(w, `{"items": [%d], "next": "%[1]d"}`, len(seen))
		case "/v1/same":
			fmt.Fprint(w, `{"items": [1], "next": "x"}`)
		case "/v1/odd":
			fmt.Fprint(w, `{"items": 5}`)
		default:
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprint(w, "done")
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	base, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(base, nil, bearer{"token"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)

	var answer strings.Builder
	var kind string
	r := Raw{Method: "PUT", Path: "/v1/a%2Fb", Query: url.Values{"q": {"x y", "z"}}, Body: []byte(`{"a":1}`), Match: `"tag"`, Key: "0123456789abcdef"}
	if err := c.Do(t.Context(), r, func(k string) io.Writer { kind = k; return &answer }); err != nil {
		t.Fatal(err)
	}
	if want := `PUT /v1/a%2Fb?q=x+y&q=z {"a":1}["tag"] ["0123456789abcdef"]`; seen[0] != want || answer.String() != "done" || kind != "text/plain" {
		t.Errorf("asked %q, want %q; got %q of %q", seen[0], want, answer.String(), kind)
	}
	if err := c.Do(t.Context(), Raw{Method: "GET", Path: "/v1/there"}, func(string) io.Writer { return io.Discard }); err == nil || len(seen) != 2 {
		t.Errorf("a redirection is followed: %q, %v", seen, err)
	}
	for path, want := range map[string]string{"/v1/same": "the same cursor twice", "/v1/endless": "more than 1000 pages", "/v1/odd": "expected a list", "/v1/x": "expected the gateway's JSON"} {
		if _, err := c.All(t.Context(), Raw{Method: "GET", Path: path, Query: url.Values{}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}
