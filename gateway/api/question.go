package api

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

// huma reads questions too, but by a program of some 20 KiB for each of their types. So it
// is left to document and to validate, and questions are read here, by what their types say.

// question is what a route is asked: a struct whose fields, those of embedded structs among
// them, are parameters (tagged path, query or header), or the JSON body (called Body).
type question struct {
	schemas    huma.Registry
	parameters []parameter
	resolvers  [][]int // fields that read the request by themselves (huma.Resolver)

	body       []int // field; nil: there is none
	bodySchema *huma.Schema
	optional   bool // the body may be left out: it is a pointer
	maxBody    int64
	patience   time.Duration // for the body
}

// parameter is one of a question.
type parameter struct {
	field    []int
	in, name string
	required bool
	explode  bool // of a list: each value is a parameter of its own
	fallback string
	schema   *huma.Schema
}

// questionOf returns what a type of questions asks for, and has the document say so. It
// panics where that is what it cannot read.
func questionOf(schemas huma.Registry, op *huma.Operation, t reflect.Type) *question {
	q := &question{schemas: schemas, maxBody: op.MaxBodyBytes, patience: op.BodyReadTimeout}
	q.look(op, t, nil)
	return q
}

func (q *question) look(op *huma.Operation, t reflect.Type, at []int) {
	for i := range t.NumField() {
		f, field := t.Field(i), append(slices.Clone(at), i)
		switch {
		case f.Anonymous:
			if reflect.PointerTo(f.Type).Implements(reflect.TypeFor[huma.Resolver]()) {
				q.resolvers = append(q.resolvers, field)
				continue
			}
			q.look(op, f.Type, field)
		case f.Name == "Body":
			complete(reflect.New(f.Type).Elem()) // a default that is none is found here, not by a request
			q.describeBody(op, f)
			q.body = field
		default:
			p, ok := parameterOf(f)
			if !ok {
				panic(fmt.Sprintf("api: the question of %s has a field %s, which is neither a parameter nor the body", op.OperationID, f.Name))
			}
			p.field, p.schema = field, huma.SchemaFromField(q.schemas, f, "")
			q.parameters = append(q.parameters, p)
			p.describe(op)
		}
	}
}

func parameterOf(f reflect.StructField) (p parameter, ok bool) {
	for _, in := range []string{"path", "query", "header"} {
		tag := f.Tag.Get(in)
		if tag == "" {
			continue
		}
		name, how, _ := strings.Cut(tag, ",")
		p = parameter{in: in, name: name, required: in == "path" || f.Tag.Get("required") == "true", explode: how == "explode", fallback: f.Tag.Get("default")}
		switch f.Type.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint64, reflect.Float64:
			return p, how == ""
		case reflect.Slice:
			return p, f.Type.Elem().Kind() == reflect.String && p.explode
		}
		return p, reflect.PointerTo(f.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	}
	return p, false
}

func (p parameter) describe(op *huma.Operation) {
	param := &huma.Param{Name: p.name, Description: p.schema.Description, In: p.in, Required: p.required, Schema: p.schema}
	if p.in == "query" {
		param.Explode = &p.explode
	}
	op.Parameters = append(op.Parameters, param)
}

func (q *question) describeBody(op *huma.Operation, f reflect.StructField) {
	q.bodySchema = huma.SchemaFromField(q.schemas, f, op.OperationID+"Request")
	q.bodySchema.PrecomputeMessages()
	q.optional = f.Type.Kind() == reflect.Pointer
	op.RequestBody = &huma.RequestBody{Required: !q.optional, Content: map[string]*huma.MediaType{"application/json": {Schema: q.bodySchema}}}
}

// read fills in a question, a pointer to its type; p says what is wrong with a request.
func (q *question) read(api huma.API, c huma.Context, into reflect.Value) (p *apitype.Problem) {
	v := into.Elem()
	address := c.URL()
	query := address.Query()
	w := wrongs{at: huma.NewPathBuffer(nil, 0)}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.ContainsFunc(q.parameters, func(p parameter) bool { return p.in == "query" && p.name == name }) {
			w.add("query", name, "unknown query parameter")
		}
	}
	if len(w.list) > 0 {
		return w.problem(http.StatusUnprocessableEntity)
	}
	for _, p := range q.parameters {
		q.take(c, p, query, v.FieldByIndex(p.field), &w)
	}
	status := http.StatusUnprocessableEntity
	if q.body != nil {
		octets, p := q.readBody(c)
		if p != nil {
			return p
		}
		if len(octets) > 0 {
			if s := q.takeBody(api, c.Header("Content-Type"), octets, v.FieldByIndex(q.body), &w); s != 0 {
				status = s
			}
		}
	}
	for _, field := range q.resolvers {
		for _, err := range v.FieldByIndex(field).Addr().Interface().(huma.Resolver).Resolve(c) {
			w.add("", "", err.Error())
		}
	}
	if len(w.list) > 0 {
		return w.problem(status)
	}
	return nil
}

// take reads and judges a parameter.
func (q *question) take(c huma.Context, p parameter, query url.Values, f reflect.Value, w *wrongs) {
	var text string
	switch p.in {
	case "path":
		text = c.Param(p.name)
	case "query":
		text = c.Query(p.name)
	default:
		text = c.Header(p.name)
	}
	if text == "" {
		text = p.fallback
	}
	if text == "" {
		if p.required {
			w.add(p.in, p.name, "required "+p.in+" parameter is missing")
		}
		return
	}
	value, err := set(f, text, query[p.name])
	if err != nil {
		w.add(p.in, p.name, err.Error())
		return
	}
	w.judge(q.schemas, p.schema, []string{p.in, p.name}, value)
}

// set has a field have the value that a text, or of a list all texts, says, and returns it
// as JSON would have it.
func set(f reflect.Value, text string, all []string) (any, error) {
	switch f.Kind() {
	case reflect.String:
		f.SetString(text)
		return text, nil
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, errors.New("expected true or false")
		}
		f.SetBool(b)
		return b, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, f.Type().Bits())
		if err != nil {
			return nil, errors.New("expected an integer")
		}
		f.SetInt(n)
		return n, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, f.Type().Bits())
		if err != nil {
			return nil, errors.New("expected an integer from 0")
		}
		f.SetUint(n)
		return n, nil
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, errors.New("expected a number")
		}
		f.SetFloat(x)
		return x, nil
	case reflect.Slice:
		list := reflect.MakeSlice(f.Type(), len(all), len(all))
		for i, t := range all {
			list.Index(i).SetString(t)
		}
		f.Set(list)
		return all, nil
	}
	u, ok := f.Addr().Interface().(encoding.TextUnmarshaler)
	if !ok {
		return nil, fmt.Errorf("expected a type that is read from text, got %s", f.Type())
	}
	if err := u.UnmarshalText([]byte(text)); err != nil {
		return nil, fmt.Errorf("expected another form: %w", err)
	}
	return text, nil
}

func (q *question) readBody(c huma.Context) ([]byte, *apitype.Problem) {
	_ = c.SetReadDeadline(time.Now().Add(q.patience)) // a connection that knows none waits as the server does
	octets, err := io.ReadAll(io.LimitReader(c.BodyReader(), q.maxBody+1))
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return nil, apitype.Refuse(http.StatusRequestTimeout, "", "the request body did not come within %s", q.patience)
	}
	switch {
	case err != nil:
		return nil, apitype.Refuse(http.StatusBadRequest, "", "the request body broke off")
	case int64(len(octets)) > q.maxBody:
		return nil, apitype.Refuse(http.StatusRequestEntityTooLarge, "", "expected a request body of at most %d octets", q.maxBody)
	case len(octets) == 0 && !q.optional:
		return nil, apitype.Refuse(http.StatusBadRequest, "", "expected a request body, got none")
	}
	return octets, nil
}

// takeBody reads and judges the body; status is that of what is wrong with it, or 0.
func (q *question) takeBody(api huma.API, kind string, octets []byte, f reflect.Value, w *wrongs) (status int) {
	if kind == "" {
		kind = "application/json"
	}
	var plain any
	if err := api.Unmarshal(kind, octets, &plain); err != nil {
		w.add("body", "", err.Error())
		if errors.Is(err, huma.ErrUnknownContentType) {
			return http.StatusUnsupportedMediaType
		}
		return http.StatusBadRequest
	}
	before := len(w.list)
	if w.judge(q.schemas, q.bodySchema, []string{"body"}, plain); len(w.list) > before {
		return http.StatusUnprocessableEntity
	}
	// What the schema lets pass may still be no value of the type, such as an address.
	if err := api.Unmarshal(kind, octets, f.Addr().Interface()); err != nil {
		w.add("body", "", err.Error())
		return http.StatusUnprocessableEntity
	}
	complete(f)
	return 0
}

// complete gives members that are left out what they are then.
func complete(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			complete(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			complete(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f, t := v.Field(i), v.Type().Field(i)
			if !t.IsExported() {
				continue
			}
			if usual := t.Tag.Get("default"); usual != "" && f.IsZero() {
				if _, err := set(f, usual, nil); err != nil {
					panic(fmt.Sprintf("api: %s of %s has the default %q: %v", t.Name, v.Type(), usual, err))
				}
				continue
			}
			complete(f)
		}
	}
}

// wrongs are what is wrong with a request. They do not repeat its values, of which one may
// be a password.
type wrongs struct {
	at   *huma.PathBuffer
	list []apitype.Detail
}

func (w *wrongs) add(in, name, what string) {
	where := in
	if name != "" {
		where += "." + name
	}
	w.list = append(w.list, apitype.Detail{Message: what, Location: where})
}

// judge notes what a schema has against a value.
func (w *wrongs) judge(schemas huma.Registry, s *huma.Schema, where []string, value any) {
	var r huma.ValidateResult
	w.at.Reset()
	for _, p := range where {
		w.at.Push(p)
	}
	huma.Validate(schemas, s, w.at, huma.ModeWriteToServer, value, &r)
	for _, err := range r.Errors {
		d := apitype.Detail{Message: err.Error()}
		if e, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			d = apitype.Detail{Message: e.Message, Location: e.Location}
		}
		w.list = append(w.list, d)
	}
}

func (w *wrongs) problem(status int) *apitype.Problem {
	p := apitype.Refuse(status, "", "validation failed")
	p.Errors = w.list
	return p
}
