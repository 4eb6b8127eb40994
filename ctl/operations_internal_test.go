package ctl

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// tableRows are the rows of the table on a page that begins with such a heading.
func tableRows(t *testing.T, page, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), heading+"\n|")
	if !ok {
		t.Fatalf("docs/%s: no table with the heading %s", page, heading)
	}
	body, _, _ := strings.Cut(after, "\n\n")
	var rows [][]string
	for line := range strings.Lines(body) {
		if cells := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | "); len(cells) > 1 {
			rows = append(rows, cells)
		}
	}
	return rows
}

// TestEveryOperationHasACommand: docs/haloctl.md says by which command one does what each
// operation of docs/api.md does, or why there is none. docs/api.md is held to the API by a
// test of gateway/api.
func TestEveryOperationHasACommand(t *testing.T) {
	a := &app{env: Env{Getenv: func(string) string { return "" }}}
	root := a.command()
	covered := map[string]bool{}
	for _, row := range tableRows(t, "haloctl.md", "| operation | haloctl |") {
		operation := row[0]
		covered[operation] = true
		for command := range strings.SplitSeq(row[1], ", ") {
			words := strings.Fields(command)
			var flags, path []string
			for _, w := range words {
				if flag, ok := strings.CutPrefix(w, "--"); ok {
					flags = append(flags, flag)
				} else {
					path = append(path, w)
				}
			}
			c, rest, err := root.Find(path)
			switch {
			case err != nil || c == root || c.HasSubCommands():
				t.Errorf("%s: docs/haloctl.md has haloctl %s, which is no command", operation, command)
				continue
			case len(rest) > 0 && c.ValidateArgs(rest) != nil:
				t.Errorf("%s: docs/haloctl.md has haloctl %s, of which %q is no command", operation, command, rest)
			case c.Name() == "api":
				t.Errorf("%s: haloctl api is for what has no command", operation)
			}
			for _, f := range flags {
				if c.Flags().Lookup(f) == nil {
					t.Errorf("%s: docs/haloctl.md has haloctl %s, which has no --%s", operation, command, f)
				}
			}
		}
	}
	for _, row := range tableRows(t, "haloctl.md", "| operation without a command | why |") {
		if covered[row[0]] {
			t.Errorf("%s: docs/haloctl.md has it twice", row[0])
		}
		covered[row[0]] = true
	}
	route := regexp.MustCompile(`^(GET|POST|PUT|PATCH|DELETE) /`)
	for _, row := range tableRows(t, "api.md", "| method and path | operation | needs |") {
		if operation := row[1]; route.MatchString(row[0]) && !covered[operation] {
			t.Errorf("%s (%s): add the command that does it to the table in docs/haloctl.md, or say there why there is none", operation, row[0])
		} else {
			delete(covered, operation)
		}
	}
	for operation := range covered {
		t.Errorf("%s: docs/haloctl.md has it, and docs/api.md has no such operation", operation)
	}
}
