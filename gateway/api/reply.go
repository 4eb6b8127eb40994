package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

// huma makes some 20 KiB of program of each pair of types that it is given, and there are
// more than a hundred here. So it is given none: what it would say of an answer's type in
// the document, and write of its value, is said and written here, as questions are read in
// question.go.

// shape is which fields of an answer are what.
type shape struct {
	status, body int            // fields; -1: none
	usual        int            // status where the answer tells none
	headers      map[string]int // fields, by the header's name
}

// shapeOf returns the shape of an operation's answers. It panics where they have fields
// that are neither Status nor Body nor a header of text.
func shapeOf(t reflect.Type, op huma.Operation) shape {
	s := shape{status: -1, body: -1, usual: cmp.Or(op.DefaultStatus, http.StatusNoContent), headers: map[string]int{}}
	for i := range t.NumField() {
		f := t.Field(i)
		switch name := f.Tag.Get("header"); {
		case f.Name == "Status":
			s.status = i
		case f.Name == "Body":
			s.body, s.usual = i, cmp.Or(op.DefaultStatus, http.StatusOK)
		case name != "" && f.Type.Kind() == reflect.String:
			s.headers[name] = i
		default:
			panic(fmt.Sprintf("api: the answer of %s has a field %s, which is no header of text", op.OperationID, f.Name))
		}
	}
	return s
}

// describe has the document say what an operation's answers are.
func (s shape) describe(schemas huma.Registry, op *huma.Operation, t reflect.Type) {
	op.DefaultStatus = s.usual
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	code := strconv.Itoa(s.usual)
	if op.Responses[code] == nil {
		op.Responses[code] = &huma.Response{}
	}
	r := op.Responses[code]
	r.Description = cmp.Or(r.Description, http.StatusText(s.usual))
	for name, i := range s.headers {
		if r.Headers == nil {
			r.Headers = map[string]*huma.Param{}
		}
		f := t.Field(i)
		r.Headers[name] = &huma.Param{Schema: huma.SchemaFromField(schemas, f, ""), Description: f.Tag.Get("doc")}
	}
	if s.body < 0 {
		return
	}
	if len(r.Content) == 0 {
		r.Content = map[string]*huma.MediaType{"application/json": {}}
	}
	if m := r.Content["application/json"]; m != nil && m.Schema == nil {
		m.Schema = huma.SchemaFromField(schemas, t.Field(s.body), op.OperationID+"Response")
	}
}

// write writes an answer. room says whether so many octets may wait to be read. An error is
// its, or one of the answer itself, of which nothing has been written then. That a client
// takes no more of it is none: the server ends the connection, and there is nobody to tell.
func (s shape) write(api huma.API, buffers *sync.Pool, room func(octets int) error, c huma.Context, answer reflect.Value) error {
	status, contentType := s.usual, ""
	if s.status >= 0 {
		status = cmp.Or(int(answer.Field(s.status).Int()), status)
	}
	if i, ok := s.headers["Content-Type"]; ok {
		contentType = answer.Field(i).String()
	}
	var octets []byte
	if s.body >= 0 && status != http.StatusNoContent && status != http.StatusNotModified {
		body := answer.Field(s.body).Interface()
		var isOctets bool
		if octets, isOctets = body.([]byte); !isOctets {
			if contentType == "" {
				var err error
				if contentType, err = api.Negotiate(c.Header("Accept")); err != nil {
					contentType = "application/json" // all that there is
				}
			}
			buffer, _ := buffers.Get().(*[]byte)
			if buffer == nil {
				buffer = new([]byte)
			}
			var err error
			if octets, err = encode(api, c, (*buffer)[:0], status, contentType, body); err != nil {
				return err
			}
			defer func() {
				if cap(octets) <= maxBuffer {
					*buffer = octets
					buffers.Put(buffer)
				}
			}()
		}
		if c.Method() == http.MethodGet { // what has changed something tells of it
			if err := room(len(octets)); err != nil {
				return err
			}
		}
	}
	for name, i := range s.headers {
		if text := answer.Field(i).String(); text != "" {
			c.SetHeader(name, text)
		}
	}
	if contentType != "" {
		c.SetHeader("Content-Type", contentType)
	}
	c.SetStatus(status)
	if len(octets) > 0 {
		_, _ = c.BodyWriter().Write(octets)
	}
	return nil
}

// encode appends a body in its content type.
func encode(api huma.API, c huma.Context, b []byte, status int, contentType string, body any) ([]byte, error) {
	body, err := api.Transform(c, strconv.Itoa(status), body)
	if err != nil {
		return nil, err
	}
	if j, ok := body.(jsonAppender); ok && contentType == "application/json" {
		if b, err = j.AppendJSON(b); err != nil {
			return nil, err
		}
		return append(b, '\n'), nil // as encoding/json's encoder ends it
	}
	w := bytes.NewBuffer(b)
	err = api.Marshal(w, contentType, body)
	return w.Bytes(), err
}

// maxBuffer bounds the buffers of answers that are kept: a list of 500 nodes fits.
const maxBuffer = 1 << 20

// jsonAppender is an answer that is written faster than encoding/json does.
type jsonAppender interface {
	AppendJSON([]byte) ([]byte, error)
}

var (
	_ jsonAppender = apitype.SeriesList{}
	_ jsonAppender = apitype.NodeList{}
)

// reply writes an answer, a pointer or nil.
func (a *API) reply(c huma.Context, s shape, operation string, answer any) {
	if answer == nil {
		c.SetStatus(s.usual)
		return
	}
	if r, ok := answer.(*huma.StreamResponse); ok {
		r.Body(c)
		return
	}
	room := func(octets int) error { return a.makeRoom(c.Context(), octets, 0) }
	if err := s.write(a.huma, &a.buffers, room, c, reflect.ValueOf(answer).Elem()); err != nil {
		refuse(c, a.problem(context.WithoutCancel(c.Context()), operation, fmt.Errorf("answer: %w", err))) // it is the gateway's fault, whoever still listens
	}
}

// refuse writes a problem.
func refuse(c huma.Context, p *apitype.Problem) {
	for name, values := range p.GetHeaders() {
		for _, v := range values {
			c.AppendHeader(name, v)
		}
	}
	c.SetHeader("Content-Type", p.ContentType(""))
	c.SetStatus(p.Status)
	_ = json.NewEncoder(c.BodyWriter()).Encode(p) // the client went away: nobody to tell
}

// describeErrors has the document say that an operation may be refused.
func describeErrors(schemas huma.Registry, op *huma.Operation) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	if len(op.Responses) == 0 {
		op.Responses[strconv.Itoa(cmp.Or(op.DefaultStatus, http.StatusOK))] = &huma.Response{Description: http.StatusText(cmp.Or(op.DefaultStatus, http.StatusOK))}
	}
	if len(op.Responses) == 1 {
		op.Responses["default"] = &huma.Response{Description: "Error", Content: problemContent(schemas)}
	}
}

func problemContent(schemas huma.Registry) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/problem+json": {Schema: schemas.Schema(reflect.TypeFor[apitype.Problem](), true, "Problem")}}
}
