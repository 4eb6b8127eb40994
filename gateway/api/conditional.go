package api

import (
	"net/http"

	"halo.internal/gateway/etag"
)

// IfMatch is embedded in the input of routes that change something with an entity tag.
type IfMatch struct {
	Condition string `header:"If-Match" maxLength:"1024" doc:"ETag of what the change is made for: it is refused (412, etag-mismatch) if that was changed meanwhile; left out, or *: it is made whatever is there"`
}

func (c IfMatch) match() (etag.Match, error) { return etag.Parse("If-Match", c.Condition) }

// IfNoneMatch is embedded in the input of routes that read something with one.
type IfNoneMatch struct {
	Condition string `header:"If-None-Match" maxLength:"1024" doc:"ETag of what the client has: the answer is 304 and empty if it is still so"`
}

// tagged is an answer with an entity tag.
type tagged[T any] struct {
	Status int
	ETag   string `header:"ETag" doc:"for If-Match and If-None-Match"`
	Body   T
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
