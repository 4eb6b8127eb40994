package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

type inner struct {
	Seconds int `json:"seconds,omitempty" minimum:"1" maximum:"600" default:"30"`
}

// asked has one of all that questions may have.
type asked struct {
	Page
	ID     int64          `path:"id" minimum:"1"`
	Kind   model.Severity `query:"kind" enum:"live,gone"`
	Deep   bool           `query:"deep"`
	Share  float64        `query:"share" maximum:"1"`
	Number uint64         `query:"number"`
	At     time.Time      `query:"at"`
	Node   []string       `query:"node,explode" maxItems:"2"`
	Match  string         `header:"If-Match" maxLength:"8"`
	In[struct {
		Name    string     `json:"name" minLength:"2"`
		Address netip.Addr `json:"address,omitempty"`
		Inner   *inner     `json:"inner,omitempty"`
		Life    int64      `json:"life,omitempty" default:"7"`
		Note    string     `json:"note,omitempty"`
	}]
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var got asked
	register(f.API, open, huma.Operation{OperationID: "ask", Method: http.MethodPut, Path: "/test/{id}"}, func(_ context.Context, i *asked) (*nothing, error) {
		got = *i
		return nil, nil
	})
	for name, tc := range map[string]struct {
		path, body, kind string
		status           int
		where            string // location of what is wrong
	}{
		"all":                   {path: "7?kind=gone&deep=true&share=0.5&number=18446744073709551615&at=2026-11-29T12:00:00.5Z&node=a&node=b&limit=9", body: `{"name":"mast","inner":{}}`, status: 204},
		"little":                {path: "7", body: `{"name":"mast"}`, status: 204},
		"of another charset":    {path: "7", body: `{"name":"mast"}`, kind: "application/json; charset=utf-8", status: 204},
		"a number of the path":  {path: "x", body: `{"name":"mast"}`, status: 422, where: "path.id"},
		"below the least":       {path: "0", body: `{"name":"mast"}`, status: 422, where: "path.id"},
		"a word there is not":   {path: "7?kind=other", body: `{"name":"mast"}`, status: 422, where: "query.kind"},
		"a truth":               {path: "7?deep=perhaps", body: `{"name":"mast"}`, status: 422, where: "query.deep"},
		"more than the most":    {path: "7?share=2", body: `{"name":"mast"}`, status: 422, where: "query.share"},
		"a negative number":     {path: "7?number=-1", body: `{"name":"mast"}`, status: 422, where: "query.number"},
		"a time":                {path: "7?at=noon", body: `{"name":"mast"}`, status: 422, where: "query.at"},
		"too many":              {path: "7?node=a&node=b&node=c", body: `{"name":"mast"}`, status: 422, where: "query.node"},
		"a parameter of no use": {path: "7?color=red", body: `{"name":"mast"}`, status: 422, where: "query.color"},
		"no body":               {path: "7", status: 400},
		"no JSON":               {path: "7", body: `{"name":`, status: 400, where: "body"},
		"another language":      {path: "7", body: `name: mast`, kind: "application/yaml", status: 415, where: "body"},
		"a member too few":      {path: "7", body: `{}`, status: 422, where: "body"},
		"a member too many":     {path: "7", body: `{"name":"mast","color":"red"}`, status: 422, where: "body.color"},
		"a short name":          {path: "7", body: `{"name":"m"}`, status: 422, where: "body.name"},
		"no address":            {path: "7", body: `{"name":"mast","address":"here"}`, status: 422, where: "body.address"},
		"deep within":           {path: "7", body: `{"name":"mast","inner":{"seconds":601}}`, status: 422, where: "body.inner.seconds"},
		"too much":              {path: "7", body: `{"name":"mast","note":"` + strings.Repeat("x", maxBody) + `"}`, status: 413},
	} {
		t.Run(name, func(t *testing.T) {
			got = asked{}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.url+"/test/"+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if tc.kind != "" {
				r.Header.Set("Content-Type", tc.kind)
			}
			r.Header.Set("If-Match", "*")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var p apitype.Problem
			if resp.StatusCode >= 400 {
				if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.Header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s is no problem: %v", resp.Header.Get("Content-Type"), err)
				}
			}
			where := ""
			if len(p.Errors) > 0 {
				where = p.Errors[0].Location
			}
			if resp.StatusCode != tc.status || where != tc.where {
				t.Errorf("got %s, wrong is %q (%+v); want %d and %q", resp.Status, where, p, tc.status, tc.where)
			}
			if tc.status == http.StatusNoContent && (got.ID != 7 || got.Body.Name != "mast" || got.Body.Life != 7 || got.Match != "*") {
				t.Errorf("got %+v", got)
			}
			switch name {
			case "all":
				if got.Limit != 9 || got.Kind != "gone" || !got.Deep || got.Share != 0.5 || got.Number != 1<<64-1 || got.At.Nanosecond() != 5e8 || len(got.Node) != 2 || got.Body.Inner.Seconds != 30 {
					t.Errorf("got %+v", got)
				}
			case "little":
				if got.Limit != 100 || got.Body.Inner != nil || got.Node != nil {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
}

// What a question cannot be is found when its route is made.
func TestQuestionsThatAreNone(t *testing.T) {
	for name, register := range map[string]func(*API){
		"a field that is nothing": func(a *API) {
			register(a, open, huma.Operation{OperationID: "x", Method: "GET", Path: "/x"}, func(context.Context, *struct{ What string }) (*nothing, error) { return nil, nil })
		},
		"a parameter of a strange type": func(a *API) {
			register(a, open, huma.Operation{OperationID: "y", Method: "GET", Path: "/y"}, func(context.Context, *struct {
				What map[string]string `query:"what"`
			}) (*nothing, error) {
				return nil, nil
			})
		},
		"a list in one text": func(a *API) {
			register(a, open, huma.Operation{OperationID: "z", Method: "GET", Path: "/z"}, func(context.Context, *struct {
				What []string `query:"what"`
			}) (*nothing, error) {
				return nil, nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			defer func() {
				if recover() == nil {
					t.Error("it was taken")
				}
			}()
			register(f.API)
		})
	}
}
