package api

import (
	"regexp"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

func TestDocsEscapeTexts(t *testing.T) {
	hostile := `"><script>alert('&')</script>`
	doc := &huma.OpenAPI{
		Info: &huma.Info{Title: hostile, Description: hostile, Version: hostile},
		Paths: map[string]*huma.PathItem{"/" + hostile: {Post: &huma.Operation{
			OperationID: hostile, Tags: []string{hostile}, Summary: hostile, Description: hostile,
			Parameters:  []*huma.Param{{Name: hostile, In: hostile, Description: hostile, Schema: &huma.Schema{Type: hostile, Format: hostile}}},
			RequestBody: &huma.RequestBody{Content: map[string]*huma.MediaType{hostile: {Schema: &huma.Schema{Ref: "#/" + hostile}}}},
			Responses:   map[string]*huma.Response{hostile: {Description: hostile, Content: map[string]*huma.MediaType{hostile: {Schema: &huma.Schema{Ref: hostile}}}}},
		}}},
		Components: &huma.Components{Schemas: huma.NewMapRegistry("#/", huma.DefaultSchemaNamer)},
	}
	doc.Components.Schemas.Map()[hostile] = &huma.Schema{Description: hostile, Properties: map[string]*huma.Schema{
		hostile: {Type: hostile, Description: hostile, Enum: []any{hostile}},
	}}
	page := string(renderDocs(doc))
	for _, bad := range []string{"<script", `"><s`, "%!", "'&'"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page contains %q:\n%s", bad, page)
		}
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 15 {
		t.Errorf("expected all texts on the page, escaped; got %d", n)
	}
	var open []string
	for _, tag := range regexp.MustCompile(`<(/?)([a-z0-9]+)[^>]*>`).FindAllStringSubmatch(page, -1) {
		switch name := tag[2]; {
		case name == "meta":
		case tag[1] == "":
			open = append(open, name)
		case len(open) == 0 || open[len(open)-1] != name:
			t.Fatalf("</%s> where %v are open:\n%s", name, open, page)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%v are not closed", open)
	}
}
