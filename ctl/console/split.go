package console

import (
	"errors"
	"strings"
)

// ErrQuote is returned for a line with a quotation mark that is not closed.
var ErrQuote = errors.New("expected the other quotation mark")

// Split makes words of a line, as a shell does of a simple one: blanks part them,
// but not between quotation marks. There are no variables, no pipes and no
// substitutions.
func Split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	in := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ' || r == '\t':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, ErrQuote
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
