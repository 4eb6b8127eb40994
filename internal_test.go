package halo

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "halo.internal"

// layers are the rooms of ARCHITECTURE.md from the top down: a package imports
// from its own room and from layers below, never up or sideways.
var layers = [][]string{
	{"cmd"},
	{"gateway", "agent", "field", "ctl", "image", "lab"},
	{"mesh"},
	{"update"},
	{"drivers"},
	{"hal"},
	{"identity"},
	{"local"},
	{"health"},
	{"model"},
	{"boards"}, // files alone
}

// rooms says which binary lives where. The room of one binary is closed to all
// others, whatever its layer: they speak over sockets.
var rooms = map[string]string{
	"gateway-api": "gateway", "halo-mesh": "mesh", "halo-agent": "agent", "halo-field": "field", "haloctl": "ctl",
	"halo-init": "image", "halo-image": "image", "init": "image", "halo-lab": "lab", "halo-air": "lab",
}

// source is one parsed file of the module.
type source struct {
	file string // slash-separated, from the top
	dir  string
	ast  *ast.File
	test bool // of an external test package, which may join rooms
}

func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch name := d.Name(); {
			case p == ".":
				return nil
			case strings.HasPrefix(name, "."), name == "testdata", name == "out", name == "bin":
				return filepath.SkipDir
			}
			// gokrazy's instance directories hold modules of their own.
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(p)
		list = append(list, source{file, path.Dir(file), f, strings.HasSuffix(file, "_test.go") && strings.HasSuffix(f.Name.Name, "_test")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no Go files found")
	}
	return list
}

// imports are the directories of this module that a file imports.
func (s source) imports(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, i := range s.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", s.file, err)
		}
		if p == "C" {
			t.Errorf("%s imports C: HALO is built with CGO_ENABLED=0", s.file)
		}
		if dir, ok := strings.CutPrefix(p, module+"/"); ok {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func room(dir string) string {
	top, _, _ := strings.Cut(dir, "/")
	return top
}

func layer(t *testing.T, dir string) int {
	t.Helper()
	i := slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, room(dir)) })
	if i < 0 {
		t.Errorf("%s is in no room that ARCHITECTURE.md names", dir)
	}
	return i
}

func TestImportsPointDownward(t *testing.T) {
	closed := map[string]bool{}
	for _, r := range rooms {
		closed[r] = true
	}
	for _, s := range sources(t) {
		if s.dir == "." {
			continue // no package: only this test
		}
		for _, to := range s.imports(t) {
			from, own := room(s.dir), room(s.dir) == room(to)
			switch {
			case own && from == "cmd":
				t.Errorf("%s imports %s: commands share nothing", s.file, to)
			case own:
			case from == "cmd":
				if binary := path.Base(s.dir); closed[room(to)] && rooms[binary] != room(to) {
					t.Errorf("%s imports %s: the room of %s is %s", s.file, to, binary, rooms[binary])
				}
			case s.test && room(to) != "cmd":
				// An external test may join what only meets over a wire.
			case layer(t, s.dir) >= layer(t, to):
				t.Errorf("%s imports %s: imports point downward only", s.file, to)
			case closed[room(to)]:
				t.Errorf("%s imports %s: the room of another binary", s.file, to)
			}
		}
	}
}

func TestEveryCommandHasARoomAndOnlyWires(t *testing.T) {
	const most = 80
	lines := map[string]int{}
	for _, s := range sources(t) {
		if room(s.dir) != "cmd" || strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		if _, ok := rooms[path.Base(s.dir)]; !ok || path.Dir(s.dir) != "cmd" {
			t.Errorf("%s: no command that ARCHITECTURE.md names", s.file)
		}
		b, err := os.ReadFile(s.file)
		if err != nil {
			t.Fatal(err)
		}
		lines[s.dir] += bytes.Count(b, []byte("\n"))
	}
	for dir, n := range lines {
		if n > most {
			t.Errorf("%s has %d lines: a command only wires, in at most %d", dir, n, most)
		}
	}
}

// Names that say nothing about what is inside.
var namesForbidden = []string{"util", "utils", "common", "manager", "helper", "helpers", "misc", "shared", "base", "lib", "core", "types"}

// fullStop ends a sentence; the dot of halo.toml does not.
var fullStop = regexp.MustCompile(`\.(\s|$)`)

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	docs := map[string]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		name := s.ast.Name.Name
		if slices.Contains(namesForbidden, name) || slices.Contains(namesForbidden, path.Base(s.dir)) {
			t.Errorf("%s: package %s: the name says nothing about what is inside", s.file, name)
		}
		doc := strings.TrimSpace(s.ast.Doc.Text())
		if doc == "" {
			if _, ok := docs[s.dir]; !ok {
				docs[s.dir] = ""
			}
			continue
		}
		if docs[s.dir] != "" {
			t.Errorf("%s: a second package comment; one place says what %s is for", s.file, name)
		}
		docs[s.dir] = doc
		subject := "Package " + name + " "
		if name == "main" {
			subject = "Command " + path.Base(s.dir) + " "
		}
		rest, ok := strings.CutPrefix(doc, subject)
		if !ok {
			t.Errorf("%s: expected the package comment to begin with %q", s.file, subject)
		}
		if sentence := fullStop.FindStringIndex(rest); sentence == nil || len(strings.Fields(rest[:sentence[0]])) < 4 {
			t.Errorf("%s: expected a whole sentence on what the package is for, got %q", s.file, doc)
		}
	}
	for dir, doc := range docs {
		if doc == "" {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}

// hosts are package registries and archives. Where packages come from is the
// business of the machine that builds, by its own configuration.
var hosts = regexp.MustCompile(`(proxy|sum)\.golang\.org|(deb|security|ftp|snapshot)\.debian\.org|registry\.(npmjs|yarnpkg)\.|goproxy\.(io|cn)`)

func TestNoFileNamesARegistry(t *testing.T) {
	read := 0
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != "." && (name == ".git" || name == ".cache" || name == "out" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil || bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 { // no text
			return err
		}
		read++
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, len(b)+1)
		for n := 1; lines.Scan(); n++ {
			if m := hosts.FindString(lines.Text()); m != "" {
				t.Errorf("%s:%d names %s", p, n, m)
			}
		}
		return lines.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if read == 0 {
		t.Fatal("no files found")
	}
}
