package board

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"halo.internal/boards"
)

// The boards that docs/boards.md shows are such that they would be taken.
func TestExamplesOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/boards.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(found) != 2 {
		t.Fatalf("expected two examples in docs/boards.md, got %d", len(found))
	}
	for _, m := range found {
		name := regexp.MustCompile(`(?m)^name = "(.*)"`).FindSubmatch(m[1])
		if name == nil {
			t.Fatal("an example without a name")
		}
		if _, err := Parse(string(name[1])+".toml", m[1], boards.Files); err != nil {
			t.Error(err)
		}
	}
	for _, f := range builtIn(t) {
		if !strings.Contains(string(page), "| `"+f.Name+"` |") {
			t.Errorf("docs/boards.md does not list %s", f.Name)
		}
	}
}
