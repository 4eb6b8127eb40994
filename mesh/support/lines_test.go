package support

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"a line", "one\n", "one\n"},
		{"some", "one\ntwo\n\nthree\n", "one\ntwo\n\nthree\n"},
		{"without its end", "one", "one\n"},
		{"the longest", strings.Repeat("x", maxLine-1) + "\n", strings.Repeat("x", maxLine-1) + "\n"},
		{"too long", "a\n" + strings.Repeat("secret", maxLine) + "\nb\n", fmt.Sprintf("a\n[a line of %d octets is left out]\nb\n", 6*maxLine+1)},
	} {
		var l Lines
		if n, err := l.Write([]byte(tc.in)); n != len(tc.in) || err != nil {
			t.Errorf("%s: %d, %v", tc.name, n, err)
		}
		if got := string(l.Bytes()); got != tc.want {
			t.Errorf("%s: got %.100q, want %.100q", tc.name, got, tc.want)
		}
	}
}

// TestTheLastLinesAreKept, whole, and no more than there is room for.
func TestTheLastLinesAreKept(t *testing.T) {
	var l Lines
	log := slog.New(slog.NewTextHandler(&l, nil))
	const n = 5000
	for i := range n {
		log.Info("list of members not signed", "err", "no epoch", "n", i)
		if i < 3 {
			log.Debug("not worth it")
		}
	}
	got := l.Bytes()
	if len(got) > maxLog || len(got) < maxLog*9/10 || l.size != len(got) {
		t.Errorf("%d octets are kept, %d are counted, want nearly %d", len(got), l.size, maxLog)
	}
	lines := bytes.Split(bytes.TrimSuffix(got, []byte("\n")), []byte("\n"))
	for i, line := range lines {
		if want := fmt.Sprintf(`level=INFO msg="list of members not signed" err="no epoch" n=%d`, n-len(lines)+i); !bytes.HasPrefix(line, []byte("time=")) || !bytes.HasSuffix(line, []byte(want)) {
			t.Fatalf("line %d is %q, want …%s", i, line, want)
		}
	}
}
