package api

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The page is rendered here, not in the browser: it needs no script, so that
// its policy allows nothing but its own style sheet.

//go:embed assets/docs.html
var docsTemplate string

//go:embed assets/docs.css
var docsStyle string

var docsPolicy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", styleHash())

func styleHash() string {
	h := sha256.Sum256([]byte(docsStyle))
	return base64.StdEncoding.EncodeToString(h[:])
}

type docsOperation struct {
	Method, Path string
	*huma.Operation
	Body    *huma.Schema
	Answers []docsAnswer
}

type docsAnswer struct {
	Code, Description string
	Schema            *huma.Schema
}

type docsField struct {
	Name, Type, Doc string
	Required        bool
}

type docsSchema struct {
	Name, Doc string
	Fields    []docsField
}

func renderDocs(doc *huma.OpenAPI) ([]byte, error) {
	t, err := template.New("docs").Funcs(template.FuncMap{"type": schemaType, "ref": refName}).Parse(docsTemplate)
	if err != nil {
		return nil, err
	}
	byTag := map[string][]docsOperation{}
	for path, item := range doc.Paths {
		for method, op := range operations(item) {
			byTag[op.Tags[0]] = append(byTag[op.Tags[0]], docsOperationOf(method, path, op))
		}
	}
	type section struct {
		Tag        string
		Operations []docsOperation
	}
	var sections []section
	for tag, ops := range byTag {
		slices.SortFunc(ops, func(a, b docsOperation) int {
			return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
		})
		sections = append(sections, section{tag, ops})
	}
	slices.SortFunc(sections, func(a, b section) int { return cmp.Compare(a.Tag, b.Tag) })
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{"Info": doc.Info, "Sections": sections, "Schemas": schemas(doc), "Style": template.CSS(docsStyle)})
	return out.Bytes(), err
}

func docsOperationOf(method, path string, op *huma.Operation) docsOperation {
	d := docsOperation{Method: method, Path: path, Operation: op}
	if op.RequestBody != nil {
		for _, c := range op.RequestBody.Content {
			d.Body = c.Schema
		}
	}
	for code, r := range op.Responses {
		a := docsAnswer{Code: code, Description: r.Description}
		for _, c := range r.Content {
			a.Schema = c.Schema
		}
		d.Answers = append(d.Answers, a)
	}
	slices.SortFunc(d.Answers, func(a, b docsAnswer) int { return cmp.Compare(a.Code, b.Code) })
	return d
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

func schemas(doc *huma.OpenAPI) []docsSchema {
	var list []docsSchema
	for name, s := range doc.Components.Schemas.Map() {
		d := docsSchema{Name: name, Doc: s.Description}
		for field, p := range s.Properties {
			text := p.Description
			if len(p.Enum) > 0 {
				text = strings.TrimSpace(fmt.Sprintf("%s one of %v", text, p.Enum))
			}
			d.Fields = append(d.Fields, docsField{field, schemaType(p), text, slices.Contains(s.Required, field)})
		}
		slices.SortFunc(d.Fields, func(a, b docsField) int { return cmp.Compare(a.Name, b.Name) })
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b docsSchema) int { return cmp.Compare(a.Name, b.Name) })
	return list
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
