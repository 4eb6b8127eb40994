package etag

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"halo.internal/model/apitype"
)

type thing struct {
	Name string   `json:"name"`
	Tags []string `json:"tags,omitempty"`
}

func TestTags(t *testing.T) {
	a := Of(thing{Name: "a"})
	if len(a) != 22 || !strings.HasPrefix(a, `"`) || !strings.HasSuffix(a, `"`) || strings.Trim(a, `"`) != a[1:21] {
		t.Errorf("got %s", a)
	}
	if a != Of(thing{Name: "a", Tags: []string{}}) {
		t.Error("the same content has two tags")
	}
	for _, other := range []thing{{Name: "b"}, {Name: "a", Tags: []string{"x"}}} {
		if Of(other) == a {
			t.Errorf("%+v has the tag of another", other)
		}
	}
}

func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		field         string
		malformed     bool
		changes, same bool // whether Check lets "b" pass, and Has has it
	}{
		{"", false, true, false},
		{"  ", false, true, false},
		{"*", false, true, true},
		{`"b"`, false, true, true},
		{`"a", "b"`, false, true, true},
		{"\"a\"\t,\"b\" ", false, true, true},
		{`"a",,"b",`, false, true, true},
		{`"a"`, false, false, false},
		{`""`, false, false, false},
		{`W/"b"`, false, false, true},
		{`W/"a", "c"`, false, false, false},
		{`"x,b", "c"`, false, false, false},
		{`b`, true, false, false},
		{`"b`, true, false, false},
		{`"a" "b"`, true, false, false},
		{`"a", *`, true, false, false},
		{`w/"b"`, true, false, false},
		{"\"a b\"", true, false, false},
		{"\"a\x7f\"", true, false, false},
		{strings.Repeat(`"a",`, maxTags+1), true, false, false},
	} {
		m, err := Parse("If-Match", tc.field)
		p, ok := errors.AsType[*apitype.Problem](err)
		if tc.malformed {
			if !ok || p.Status != http.StatusBadRequest || !strings.Contains(p.Detail, "If-Match") {
				t.Errorf("%q: got %v, want a problem of status 400", tc.field, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tc.field, err)
			continue
		}
		err = m.Check(`"b"`)
		if p, ok := errors.AsType[*apitype.Problem](err); (err == nil) != tc.changes || err != nil && (!ok || p.Status != http.StatusPreconditionFailed || p.Type != apitype.ProblemETag) {
			t.Errorf("%q: Check: got %v", tc.field, err)
		}
		if got := m.Has(`"b"`); got != tc.same {
			t.Errorf("%q: Has: got %v", tc.field, got)
		}
	}
}

// FuzzParse holds that a field that is read says the same when it is written again,
// and that its tags are some that a server could have made.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "*", `"a"`, `W/"a", "b"`, `"a",,`, `"a" "b"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Parse("If-Match", s)
		if err != nil {
			if len(err.Error()) > 800 {
				t.Fatalf("an error of %d octets", len(err.Error()))
			}
			return
		}
		again, err := Parse("If-Match", m.String())
		if err != nil || again.String() != m.String() || again.given != m.given && len(m.tags) > 0 {
			t.Fatalf("%q: read as %q, then as %q, %v", s, m, again, err)
		}
		for _, tag := range m.tags {
			if n := strings.Count(tag, `"`); n != 2 {
				t.Fatalf("%q has the tag %q", s, tag)
			}
		}
	})
}
