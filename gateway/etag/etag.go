// Package etag makes entity tags of what the API lets people edit, and judges the
// conditions that requests carry (RFC 9110, 8.8.3 and 13.1): a change that was made
// for what somebody saw is refused once that is no longer so.
//
// A tag is a digest of the content: one that was removed and made anew, or came back
// with a restored database, has the same tag exactly where it is the same.
package etag

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"halo.internal/model/apitype"
)

// Of returns the strong tag of v, quotes included: a digest of its JSON, which must
// have nothing in it but what is edited.
func Of(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("etag: " + err.Error()) // a type of the API's own vocabulary
	}
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`
}

// Match is a condition: a list of tags, or any. The zero value is that there is none.
type Match struct {
	any   bool
	given bool
	tags  []string // strong ones, and weak ones with their W/
}

const maxTags = 64

// Parse reads the field If-Match or If-None-Match; name is which, for errors. An empty
// one is no condition.
func Parse(name, field string) (Match, error) {
	m := Match{given: true}
	rest := strings.Trim(field, " \t")
	switch rest {
	case "":
		return Match{}, nil
	case "*":
		m.any = true
		return m, nil
	}
	for first := true; rest != ""; first = false {
		if !first {
			var comma bool
			if rest, comma = strings.CutPrefix(rest, ","); !comma {
				return Match{}, malformed(name, field)
			}
			if rest = strings.TrimLeft(rest, " \t,"); rest == "" { // empty elements are ignored (RFC 9110, 5.6.1)
				break
			}
		}
		weak := ""
		if after, ok := strings.CutPrefix(rest, "W/"); ok {
			weak, rest = "W/", after
		}
		after, quoted := strings.CutPrefix(rest, `"`)
		tag, after, closed := strings.Cut(after, `"`)
		if !quoted || !closed || len(m.tags) == maxTags || strings.ContainsFunc(tag, outside) {
			return Match{}, malformed(name, field)
		}
		m.tags = append(m.tags, weak+`"`+tag+`"`)
		rest = strings.TrimLeft(after, " \t")
	}
	return m, nil
}

// outside tells of what no tag has in it.
func outside(c rune) bool { return c <= ' ' || c == 0x7f }

func malformed(name, field string) error {
	return apitype.Refuse(http.StatusBadRequest, "", `%s: expected * or at most %d entity tags such as "abc", with commas between them; got %.80q`, name, maxTags, field)
}

// Given tells whether there is a condition at all.
func (m Match) Given() bool { return m.given }

// Check is for If-Match: it returns a problem unless the tag of what is there now is
// among those that were given. Weak tags are never (RFC 9110, 13.1.1).
func (m Match) Check(now string) error {
	if !m.given || m.any || slices.Contains(m.tags, now) {
		return nil
	}
	return apitype.Refuse(http.StatusPreconditionFailed, apitype.ProblemETag,
		"If-Match: expected the entity tag of what is there, %s, got %.200s: it was changed meanwhile; read it again", now, strings.Join(m.tags, ", "))
}

// CheckNone is Check where there is nothing to have a tag: no condition is met by that
// (RFC 9110, 13.1.1).
func (m Match) CheckNone() error {
	if !m.given {
		return nil
	}
	return apitype.Refuse(http.StatusPreconditionFailed, apitype.ProblemETag, "If-Match: expected something with the entity tag %.200s, there is nothing", m)
}

// Has is for If-None-Match: it tells whether the client has what is there now already.
func (m Match) Has(now string) bool {
	return m.any || slices.ContainsFunc(m.tags, func(tag string) bool { return strings.TrimPrefix(tag, "W/") == now })
}

// String returns the condition as a field, for logs and tests.
func (m Match) String() string {
	if m.any {
		return "*"
	}
	return strings.Join(m.tags, ", ")
}

var _ fmt.Stringer = Match{}
