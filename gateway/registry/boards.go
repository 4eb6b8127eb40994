package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	boardfile "halo.internal/drivers/board"
	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// described are the descriptions of boards that nodes name in their heartbeats, by digest:
// those of this release, and those that nodes have told, which are kept in config.db.
type described struct {
	mu      sync.Mutex
	builtIn map[string]model.Board
	told    map[string]model.Board
}

const (
	maxToldBoards  = 64
	maxDigest      = 32
	maxToldProblem = 512
	settingBoards  = "boards"
)

// loadBoards reads what nodes have told. What cannot be read is told anew.
func (r *Registry) loadBoards(ctx context.Context) error {
	b := &r.described
	b.builtIn, b.told = map[string]model.Board{}, map[string]model.Board{}
	files, err := boardfile.BuiltIn()
	if err != nil {
		return err
	}
	for _, f := range files {
		b.builtIn[boardfile.Digest(f.Board)] = f.Board
	}
	text, err := r.db.Setting(ctx, settingBoards, nil)
	if err != nil || text == nil {
		return err
	}
	var kept []model.Board
	if err := json.Unmarshal(text, &kept); err != nil {
		r.events.Add("node.board.unreadable", model.Warning, events.Source, "what nodes have told of their boards cannot be read: "+err.Error(), nil)
		return nil
	}
	for _, v := range kept {
		if boardfile.Complete(&v) == nil {
			b.told[boardfile.Digest(v)] = v
		}
	}
	return nil
}

// toldBoard is what a node has told of its board since the start. Releases that describe
// boards differently make different digests of one.
type toldBoard struct {
	said string // digest of the heartbeat
	is   string // what this release makes of the description
}

// boardDigest is that of the description of a node's board; empty: it has said none. mu
// is held.
func (l *live) boardDigest() string {
	f := l.status.BoardFile
	switch {
	case f == nil:
		return ""
	case f.Digest == l.board.said:
		return l.board.is
	}
	return f.Digest
}

// KnowsBoard tells whether there is a description of the board that a node says it is;
// true for one that says nothing.
func (r *Registry) KnowsBoard(node string) bool {
	digest := ""
	r.mu.Lock()
	if l := r.live[node]; l != nil {
		digest = l.boardDigest()
	}
	r.mu.Unlock()
	if digest == "" {
		return true
	}
	_, ok := r.description(digest)
	return ok
}

func (r *Registry) description(digest string) (model.Board, bool) {
	r.described.mu.Lock()
	defer r.described.mu.Unlock()
	if b, ok := r.described.builtIn[digest]; ok {
		return b, true
	}
	b, ok := r.described.told[digest]
	return b, ok
}

// PutBoard takes what a node tells of its board, after its heartbeat. The error says what
// is wrong with it.
func (r *Registry) PutBoard(ctx context.Context, node string, b model.Board) error {
	if err := boardfile.Complete(&b); err != nil {
		return err
	}
	digest := boardfile.Digest(b)
	used := map[string]bool{digest: true}
	r.mu.Lock()
	if l := r.live[node]; l != nil && l.status.BoardFile != nil {
		l.board = toldBoard{l.status.BoardFile.Digest, digest}
	}
	for _, l := range r.live {
		used[l.boardDigest()] = true
	}
	r.mu.Unlock()
	r.nodeNews.Note(node)
	if _, ok := r.description(digest); ok {
		return nil
	}
	r.described.mu.Lock()
	defer r.described.mu.Unlock()
	for d := range r.described.told {
		if !used[d] {
			delete(r.described.told, d)
		}
	}
	if len(r.described.told) >= maxToldBoards {
		return fmt.Errorf("expected at most %d boards that are none of the release's, got one more", maxToldBoards)
	}
	r.described.told[digest] = b
	list := make([]model.Board, 0, len(r.described.told))
	for _, v := range r.described.told {
		list = append(list, v)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return r.db.PutSetting(ctx, settingBoards, text)
}

// NodeBoard returns the board of a node, by canonical ID or name.
func (r *Registry) NodeBoard(ctx context.Context, ref string) (model.NodeBoard, error) {
	n, err := r.Node(ctx, ref)
	if err != nil {
		return model.NodeBoard{}, err
	}
	out := model.NodeBoard{Node: n.ID, Model: n.Board}
	digest := ""
	r.mu.Lock()
	if l := r.live[n.ID]; l != nil && l.status.BoardFile != nil {
		out.Ref, digest = *l.status.BoardFile, l.boardDigest()
	}
	r.mu.Unlock()
	if out.Ref.Digest == "" {
		return out, apitype.Refuse(http.StatusNotFound, "", "%s has not said which board it is: it was not there yet, or its release does not tell", n.Name)
	}
	var ok bool
	if out.Board, ok = r.description(digest); !ok {
		return out, apitype.Refuse(http.StatusNotFound, "", "%s goes by a file of its own, %s.toml, and has not told it yet: it does when its stream begins", n.Name, out.Ref.Name)
	}
	return out, nil
}

// Boards returns all boards that are known, by name.
func (r *Registry) Boards() []model.BoardDescription {
	r.described.mu.Lock()
	defer r.described.mu.Unlock()
	var list []model.BoardDescription
	for d, b := range r.described.builtIn {
		list = append(list, model.BoardDescription{Digest: d, BuiltIn: true, Board: b})
	}
	for d, b := range r.described.told {
		list = append(list, model.BoardDescription{Digest: d, Board: b})
	}
	slices.SortFunc(list, func(a, b model.BoardDescription) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Digest, b.Digest))
	})
	return list
}

// trimBoard bounds what a heartbeat says of the board.
func trimBoard(f *model.BoardRef) *model.BoardRef {
	if f == nil {
		return nil
	}
	return &model.BoardRef{Name: clip(f.Name, maxText), Digest: clip(f.Digest, maxDigest), Source: model.BoardSource(clip(string(f.Source), 16)), Problem: clip(f.Problem, maxToldProblem)}
}
