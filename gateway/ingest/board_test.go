package ingest

import (
	"reflect"
	"slices"
	"testing"

	boardfile "halo.internal/drivers/board"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

func mast(t *testing.T) (model.Board, wire.StatusMessage) {
	t.Helper()
	b := model.Board{Name: "mast", Models: []string{"ACME Mast"}, Outputs: []model.BoardOutput{{Name: "siren", Line: "soc/1"}}}
	if err := boardfile.Complete(&b); err != nil {
		t.Fatal(err)
	}
	return b, wire.StatusMessage{Status: model.NodeStatus{BoardFile: &model.BoardRef{Name: b.Name, Digest: boardfile.Digest(b), Source: model.BoardFile}}}
}

func wanted(before []wire.Message) int {
	return len(slices.DeleteFunc(slices.Clone(before), func(m wire.Message) bool { _, ok := m.(wire.BoardWanted); return !ok }))
}

func TestABoardIsAskedForUntilItIsKnown(t *testing.T) {
	f := newFixture(t)
	key, other := identity.New(), identity.New()
	n := f.stream(key, f.admit(key))
	b, heartbeat := mast(t)

	n.write(wire.BoardMessage{Board: b}) // nobody has asked
	n.write(heartbeat)
	n.write(heartbeat) // before it has answered
	if got := wanted(n.flush(1)); got != 1 {
		t.Fatalf("the node was asked %d times for its board, want once", got)
	}
	n.write(wire.BoardMessage{Board: b})
	n.write(heartbeat)
	if got := wanted(n.flush(2)); got != 0 {
		t.Error("it is asked for what it has told")
	}
	if got, err := f.registry.NodeBoard(t.Context(), key.ID()); err != nil || !reflect.DeepEqual(got.Board, b) || got.Ref.Source != model.BoardFile {
		t.Errorf("got %+v, %v", got, err)
	}

	second := f.stream(other, f.admit(other))
	second.write(heartbeat)
	if got := wanted(second.flush(1)); got != 0 {
		t.Error("another node is asked for the same board")
	}
	if got, err := f.registry.NodeBoard(t.Context(), other.ID()); err != nil || !reflect.DeepEqual(got.Board, b) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestABoardThatIsWrongIsAskedForNoMore(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	b, heartbeat := mast(t)
	n.write(heartbeat)
	if got := wanted(n.flush(1)); got != 1 {
		t.Fatalf("the node was asked %d times for its board, want once", got)
	}
	b.Outputs[0].LostS = -1
	n.write(wire.BoardMessage{Board: b})
	n.write(heartbeat)
	if got := wanted(n.flush(2)); got != 0 {
		t.Error("it is asked again")
	}
	f.wantEvent("node.board.refused", key.ID())
	if _, err := f.registry.NodeBoard(t.Context(), key.ID()); err == nil {
		t.Error("what was refused is known")
	}
}
