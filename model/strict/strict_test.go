package strict

import (
	"strings"
	"testing"
)

type inner struct {
	Low  int    `toml:"low"`
	Kind string `toml:"kind,omitempty"`
}

type common struct {
	Title string `toml:"title"`
}

type outer struct {
	common
	Name string           `toml:"name"`
	Pins []inner          `toml:"pin"`
	By   map[string]inner `toml:"by"`
	Own  string           `toml:"-"`
}

func TestDecodeSaysWhereAndWhatIsExpected(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"good":             {"name = \"a\"\ntitle = \"b\"\n[[pin]]\nlow = 1\n", ""},
		"unknown":          {"name = \"a\"\ncolour = 1\n", `f.toml:2: unknown key "colour"; expected one of title, name, pin, by`},
		"unknown in array": {"[[pin]]\nlow = 1\n[[pin]]\nhigh = 2\n", `f.toml:4: pin[1]: unknown key "high"; expected one of low, kind`},
		"unknown inline":   {"by = { x = { low = 1, high = 2 } }\n", `f.toml:1: by.x: unknown key "high"; expected one of low, kind`},
		"type":             {"name = \"a\"\n[[pin]]\nlow = \"x\"\n", "f.toml:3: "},
		"syntax":           {"name = [\n", "f.toml:"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Errors(Decode("f.toml", []byte(tc.text), &outer{}))
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestLinesOfKeys(t *testing.T) {
	at := Locate([]byte("name = \"a\"\n\n[[pin]]\nlow = 1\n[[pin]]\nlow = 2\nkind = \"x\"\n[header]\npins = [\n  { low = 1 }, # one\n  { low = 2 },\n]\n"))
	for key, want := range map[string]int{"name": 1, "pin[0].low": 4, "pin[1].kind": 7, "pin[1].none": 5, "header.pins[1]": 11, "header.pins[1].low": 11, "nothing": 1} {
		if got := at.Line(key); got != want {
			t.Errorf("%s: got line %d, want %d", key, got, want)
		}
	}
}
