package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

// TestExamplesAreWhatTheyShow: each JSON body has an example, and each is one that its own
// schema lets pass.
func TestExamplesAreWhatTheyShow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	doc := f.OpenAPI()
	count := 0
	judge := func(what string, content map[string]*huma.MediaType, mode huma.ValidateMode) {
		t.Helper()
		for kind, m := range content {
			if !strings.HasSuffix(kind, "json") || kind == "application/vnd.oai.openapi+json;version=3.1" {
				continue
			}
			if m.Schema == nil || m.Example == nil {
				t.Errorf("%s has no example as %s", what, kind)
				continue
			}
			b, err := json.Marshal(m.Example)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			var result huma.ValidateResult
			huma.Validate(doc.Components.Schemas, m.Schema, huma.NewPathBuffer([]byte(what), len(what)), mode, v, &result)
			for _, err := range result.Errors {
				t.Errorf("%v; the example is %s", err, b)
			}
			count++
		}
	}
	for path, item := range doc.Paths {
		for method, op := range operations(item) {
			if op.RequestBody != nil {
				judge(method+" "+path+" request", op.RequestBody.Content, huma.ModeWriteToServer)
			}
			for code, r := range op.Responses {
				judge(method+" "+path+" "+code, r.Content, huma.ModeReadFromServer)
			}
		}
	}
	if count < 100 {
		t.Errorf("%d examples were judged", count)
	}
}

// Every tag says what its routes are about.
func TestEveryTagIsExplained(t *testing.T) {
	for _, tag := range newFixture(t).OpenAPI().Tags {
		if tag.Description == "" {
			t.Errorf("%s: document.go does not say what it is", tag.Name)
		}
	}
}
