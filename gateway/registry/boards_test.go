package registry

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	boardfile "halo.internal/drivers/board"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// mast is a board of people's, as a node tells it.
func mast(t *testing.T, title string) (b model.Board, digest string) {
	t.Helper()
	b = model.Board{Name: "mast", Title: title, Models: []string{"ACME Mast"},
		Header: &model.BoardHeader{Columns: 1, Pins: []model.BoardPin{{Pin: 1, Name: "P1", Kind: model.PinGPIO, Line: "soc/1"}}}, Outputs: []model.BoardOutput{{Name: "siren", Line: "P1"}}}
	if err := boardfile.Complete(&b); err != nil {
		t.Fatal(err)
	}
	return b, boardfile.Digest(b)
}

// says is a heartbeat that names a board.
func says(digest string, source model.BoardSource) model.NodeStatus {
	return model.NodeStatus{Board: "ACME Mast", BoardFile: &model.BoardRef{Name: "mast", Digest: digest, Source: source, Problem: "pole.toml:1: name: expected something else"}}
}

// noBoard expects that the board of a node is not known, and why.
func (f *fixture) noBoard(t *testing.T, node, why string) {
	t.Helper()
	_, err := f.NodeBoard(t.Context(), node)
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusNotFound || !strings.Contains(p.Detail, why) {
		t.Errorf("got %v, want %q", err, why)
	}
}

func (f *fixture) wantBoard(t *testing.T, node string, want model.Board) model.NodeBoard {
	t.Helper()
	got, err := f.NodeBoard(t.Context(), node)
	if err != nil || !reflect.DeepEqual(got.Board, want) {
		t.Errorf("got %+v, %v, want %+v", got.Board, err, want)
	}
	return got
}

func TestBoardsOfNodes(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	id := key.ID()
	if _, err := f.join(t, key, f.request(key, f.token(1))); err != nil {
		t.Fatal(err)
	}
	f.noBoard(t, id, "has not said which board it is")
	if !f.KnowsBoard(id) {
		t.Error("a node that says nothing is asked for its board")
	}

	files, err := boardfile.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	f.Status(id, says(boardfile.Digest(files[0].Board), model.BoardBuiltIn))
	if !f.KnowsBoard(id) {
		t.Error("a board of the release is asked for")
	}
	f.wantBoard(t, id, files[0].Board)

	own, digest := mast(t, "on the hill")
	f.Status(id, says(digest, model.BoardFile))
	if f.KnowsBoard(id) {
		t.Error("a file that nobody has told is known")
	}
	f.noBoard(t, id, "mast.toml, and has not told it yet")
	told := own
	told.Header = &model.BoardHeader{Columns: 1, Pins: []model.BoardPin{own.Header.Pins[0]}}
	told.Header.Pins[0].Use = "whatever a node says of it"
	if err := f.PutBoard(t.Context(), id, told); err != nil {
		t.Fatal(err)
	}
	if got := f.wantBoard(t, id, own); got.Model != "ACME Mast" || got.Ref.Source != model.BoardFile || !strings.Contains(got.Ref.Problem, "pole.toml:1") {
		t.Errorf("got %+v", got)
	}
	if list := f.Boards(); !slices.ContainsFunc(list, func(b model.BoardDescription) bool { return b.Digest == digest && !b.BuiltIn }) || len(list) != len(files)+1 {
		t.Errorf("got %d boards, want those of the release and %s", len(list), digest)
	}

	f.flush(t)
	f.open(t) // the gateway starts anew
	f.Status(id, says(digest, model.BoardFile))
	f.wantBoard(t, id, own)

	// Another release makes another digest of the same board.
	f.Status(id, says("0123456789abcdef", model.BoardFile))
	if f.KnowsBoard(id) {
		t.Error("a digest that nobody has is known")
	}
	if err := f.PutBoard(t.Context(), id, own); err != nil {
		t.Fatal(err)
	}
	if !f.KnowsBoard(id) {
		t.Error("it would be asked for again with each heartbeat")
	}
	f.wantBoard(t, id, own)
}

func TestBoardsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	own, digest := mast(t, "on the hill")
	f.Status("n-x", says(digest, model.BoardFile))
	own.Outputs[0].Line = "a line\nof two"
	if err := f.PutBoard(t.Context(), "n-x", own); err == nil || !strings.Contains(err.Error(), "output[0].line: expected a pin of the header") {
		t.Errorf("got %v", err)
	}
	if f.KnowsBoard("n-x") {
		t.Error("what was refused is known")
	}
}

// A node may change its file all the time, and there may be too many files.
func TestBoardsThatNobodyIsAreForgotten(t *testing.T) {
	f := newFixture(t)
	builtIn := len(f.Boards())
	tell := func(node, title string) error {
		b, digest := mast(t, title)
		f.Status(node, says(digest, model.BoardFile))
		return f.PutBoard(t.Context(), node, b)
	}
	for i := range 2 * maxToldBoards {
		if err := tell("n-x", fmt.Sprint("file ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.Boards()) - builtIn; n != 1 {
		t.Errorf("of one node %d descriptions are kept", n)
	}
	for i := range maxToldBoards - 1 {
		if err := tell(fmt.Sprint("n-", i), fmt.Sprint("other file ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tell("n-last", "one too many"); err == nil || !strings.Contains(err.Error(), "expected at most 64 boards") {
		t.Errorf("got %v", err)
	}
	if n := len(f.Boards()) - builtIn; n != maxToldBoards {
		t.Errorf("%d descriptions are kept, want %d", n, maxToldBoards)
	}
}
