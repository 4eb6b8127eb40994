package mesh

import (
	"strings"
	"testing"
)

func TestTurns(t *testing.T) {
	for _, tc := range []struct {
		name string
		kept turnFile
		boot uint64
		want uint8
	}{
		{"the first start", turnFile{}, 1, 0},
		{"the first was short", turnFile{}, 2, 1},
		{"so was the second", turnFile{}, 3, 2},
		{"after one that lasted", turnFile{2, 7}, 8, 2},
		{"after one that did not", turnFile{2, 7}, 9, 3},
		{"all round", turnFile{2, 7}, 10, 0},
		{"the process starts again", turnFile{2, 7}, 7, 2},
		{"the counter was lost", turnFile{2, 7}, 1, 2},
	} {
		if got := tc.kept.at(tc.boot); got != tc.want {
			t.Errorf("%s: turn %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestTurnFile(t *testing.T) {
	f := turnFile{3, 18446744073709551615}
	b := f.marshal()
	if got, err := parseTurn(b); err != nil || got != f {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "3 7", string(b[:len(b)-2]), strings.Replace(string(b), "3", "2", 1), string(turnFile{4, 1}.marshal()), string(b) + "x", "-1 1 00000000\n"} {
		if f, err := parseTurn([]byte(bad)); err == nil {
			t.Errorf("%q was taken for %+v", bad, f)
		}
	}
}
