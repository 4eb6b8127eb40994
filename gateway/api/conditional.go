package api

import (
	"net/http"

	"halo.internal/gateway/etag"
	"halo.internal/model/apitype"
)

// IfMatch is embedded in the input of routes that change or end something with an
// entity tag, a part of it or as a whole.
type IfMatch struct {
	Condition string `header:"If-Match" maxLength:"1024" doc:"ETag of what the change is made for: it is refused (412, etag-mismatch) if that was changed meanwhile; left out, or *: it is made whatever is there"`
}

func (c IfMatch) match() (etag.Match, error) { return etag.Parse("If-Match", c.Condition) }

// MustMatch is embedded instead where the body takes the place of all that is there:
// who has not seen it would undo what others did without knowing.
type MustMatch struct {
	Condition string `header:"If-Match" maxLength:"1024" doc:"ETag of what is replaced: refused (412, etag-mismatch) if that was changed meanwhile; *: whatever is there; left out: refused (428, condition-required)"`
}

func (c MustMatch) match() (etag.Match, error) {
	m, err := etag.Parse("If-Match", c.Condition)
	if err == nil && !m.Given() {
		err = apitype.Refuse(http.StatusPreconditionRequired, apitype.ProblemCondition,
			"this replaces all that is there: expected If-Match with the ETag of what it was made for, or * for whatever is there")
	}
	return m, err
}

// IfNoneMatch is embedded in the input of routes that read something with one. Where
// the answer has more in it than people change, such as what a node says of itself,
// it is left out: the tag does not tell of that.
type IfNoneMatch struct {
	Condition string `header:"If-None-Match" maxLength:"1024" doc:"ETag of what the client has: the answer is 304 and empty if it is still so"`
}

// tagged is an answer with an entity tag.
type tagged[T any] struct {
	Status int
	ETag   string `header:"ETag" doc:"for If-Match and If-None-Match"`
	Body   T
}

// changedTag is the answer, without a body, to a change of something with an entity tag.
type changedTag struct {
	ETag string `header:"ETag" doc:"of what came of it, for If-Match"`
}

// tag answers with v and its entity tag.
func tag[T any](v T, tag string, err error) (*tagged[T], error) {
	if err != nil {
		return nil, err
	}
	t := new(tagged[T])
	t.Status, t.ETag, t.Body = http.StatusOK, tag, v
	return t, nil
}

// unlessHad answers with v, or that the client has it.
func unlessHad[T any](c IfNoneMatch, v T, tag string, err error) (*tagged[T], error) {
	if err != nil {
		return nil, err
	}
	m, err := etag.Parse("If-None-Match", c.Condition)
	if err != nil {
		return nil, err
	}
	if m.Has(tag) {
		return &tagged[T]{Status: http.StatusNotModified, ETag: tag}, nil
	}
	return &tagged[T]{http.StatusOK, tag, v}, nil
}
