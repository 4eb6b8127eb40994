package api

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The page is rendered here, not in the browser: it needs no script, so that
// its policy allows nothing but its own style sheet.
//
// html/template would take fewer lines. But it finds methods by their names while the
// program runs, so that the linker keeps every exported method of every type.

//go:embed assets/docs.css
var docsStyle string

var docsPolicy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", styleHash())

func styleHash() string {
	h := sha256.Sum256([]byte(docsStyle))
	return base64.StdEncoding.EncodeToString(h[:])
}

// docsPage is the page as far as it is written.
type docsPage struct{ bytes.Buffer }

// put writes HTML; its texts, one for each %s, are escaped for elements and attributes.
func (p *docsPage) put(format string, texts ...string) {
	escaped := make([]any, len(texts))
	for i, t := range texts {
		escaped[i] = html.EscapeString(t)
	}
	fmt.Fprintf(p, format, escaped...)
}

func renderDocs(doc *huma.OpenAPI) []byte {
	all := docsOperations(doc)
	p := &docsPage{}
	p.put(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s: API</title>
<style>`, doc.Info.Title)
	p.WriteString(docsStyle)
	p.put(`</style>
</head>
<body>
<header>
<h1>%s</h1>
<p>%s Version %s. For programs: <a href="/openapi.json">openapi.json</a>.</p>
<nav>`, doc.Info.Title, doc.Info.Description, doc.Info.Version)
	tag := ""
	for _, op := range all {
		if op.Tags[0] != tag {
			tag = op.Tags[0]
			p.put(`<a href="#%s">%s</a>`, url.PathEscape(tag), tag)
		}
	}
	p.put("<a href=\"#types\">types</a></nav>\n</header>\n<main>\n")
	tag = ""
	for _, op := range all {
		if op.Tags[0] != tag {
			tag = op.Tags[0]
			p.put("<h2 id=\"%s\">%s</h2>\n", tag, tag)
		}
		p.operation(op)
	}
	p.put("<h2 id=\"types\">types</h2>\n")
	types := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(types)) {
		p.schema(name, types[name])
	}
	p.put("</main>\n</body>\n</html>\n")
	return p.Bytes()
}

type docsOperation struct {
	method, path string
	*huma.Operation
}

// docsOperations are those of the document, by the first of their tags, path and method.
func docsOperations(doc *huma.OpenAPI) []*docsOperation {
	var all []*docsOperation
	for path, item := range doc.Paths {
		for method, op := range operations(item) {
			all = append(all, &docsOperation{method, path, op})
		}
	}
	slices.SortFunc(all, func(a, b *docsOperation) int {
		return cmp.Or(cmp.Compare(a.Tags[0], b.Tags[0]), cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method))
	})
	return all
}

func (p *docsPage) operation(op *docsOperation) {
	p.put(`<details id="%s">
<summary><span class="method">%s</span><code>%s</code><span class="say">%s</span></summary>
<div>
<p>%s Operation <code>%s</code>.</p>
`, op.OperationID, op.method, op.path, op.Summary, op.Description, op.OperationID)
	if len(op.Parameters) > 0 {
		p.put("<table>\n<tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>\n")
		for _, q := range op.Parameters {
			if q.In != "header" {
				p.put("<tr><td><code>%s</code></td><td>%s</td><td>%s</td><td>%s</td></tr>\n", q.Name, q.In, schemaType(q.Schema), q.Description)
			}
		}
		p.put("</table>\n")
	}
	if op.RequestBody != nil {
		if s := schemaOf(op.RequestBody.Content); s != nil {
			p.put("<p>Body: ")
			p.schemaLink(s)
			p.put("</p>\n")
		}
	}
	p.put("<table>\n<tr><th>Answer</th><th></th><th>Body</th></tr>\n")
	for _, code := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[code]
		p.put("<tr><td>%s</td><td>%s</td><td>", code, r.Description)
		p.schemaLink(schemaOf(r.Content))
		p.put("</td></tr>\n")
	}
	p.put("</table>\n</div>\n</details>\n")
}

func (p *docsPage) schema(name string, s *huma.Schema) {
	p.put(`<details id="type-%s">
<summary><code>%s</code><span class="say">%s</span></summary>
<div><table>
<tr><th>Field</th><th>Type</th><th></th></tr>
`, name, name, s.Description)
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		f := s.Properties[field]
		p.put("<tr><td><code>%s</code>", field)
		if !slices.Contains(s.Required, field) {
			p.put(" <small>optional</small>")
		}
		text := f.Description
		if len(f.Enum) > 0 {
			text = strings.TrimSpace(fmt.Sprintf("%s one of %v", text, f.Enum))
		}
		p.put("</td><td>%s</td><td>%s</td></tr>\n", schemaType(f), text)
	}
	p.put("</table></div>\n</details>\n")
}

// schemaLink says what a value is, and leads to its type; of nil it says nothing.
func (p *docsPage) schemaLink(s *huma.Schema) {
	if ref := refName(s); ref != "" {
		p.put(`<a href="#type-%s">%s</a>`, url.PathEscape(ref), schemaType(s))
		return
	}
	p.put("%s", schemaType(s))
}

// schemaOf is the schema of a body, of the first type of content in the order of the
// alphabet; nil: there is none.
func schemaOf(content map[string]*huma.MediaType) *huma.Schema {
	if len(content) == 0 {
		return nil
	}
	return content[slices.Min(slices.Collect(maps.Keys(content)))].Schema
}

// operations returns what a path item offers, by method.
func operations(i *huma.PathItem) map[string]*huma.Operation {
	all := map[string]*huma.Operation{
		http.MethodGet: i.Get, http.MethodPost: i.Post, http.MethodPut: i.Put, http.MethodPatch: i.Patch, http.MethodDelete: i.Delete,
	}
	for m, op := range all {
		if op == nil {
			delete(all, m)
		}
	}
	return all
}

// schemaType says in a word what a value is.
func schemaType(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return refName(s)
	case s.Type == huma.TypeArray:
		return "list of " + schemaType(s.Items)
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	}
	return s.Type
}

// refName returns the name of the schema that s, or its items, refers to.
func refName(s *huma.Schema) string {
	for s != nil && s.Type == huma.TypeArray {
		s = s.Items
	}
	if s == nil {
		return ""
	}
	return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
}
