package agent

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"halo.internal/drivers/board"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// hardware is the board that the process runs on.
type hardware struct {
	mu  sync.Mutex
	now board.Known
}

func (h *hardware) known() board.Known {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hardware) board() model.Board { return h.known().Board }

// boardEvery is how often people's board files are looked at.
const boardEvery = 15 * time.Second

// lookAtBoard finds out which board this is.
func (a *agent) lookAtBoard() error {
	k, err := board.Find(board.Options{Root: a.Root, User: paths.Dir(a.path(paths.State)).File(paths.BoardsDir), Image: imageBoard(a.path(paths.BootReport))})
	if err != nil {
		return err
	}
	a.hardware.mu.Lock()
	defer a.hardware.mu.Unlock()
	a.hardware.now = k
	return nil
}

// watchBoard looks at people's board files again and again: they may be put on the card
// while the device runs. What changes, and what is wrong in them, becomes an event.
func (a *agent) watchBoard(ctx context.Context) {
	told := model.BoardRef{}
	every(ctx, boardEvery, func() bool {
		if err := a.lookAtBoard(); err != nil {
			a.Log.Warn("the board is not looked at", "err", err)
			return false
		}
		now := a.hardware.known().Ref
		if now.Problem != told.Problem && now.Problem != "" {
			a.note("agent.board.invalid", model.Warning, "a board file is wrong and is left out", map[string]string{"error": now.Problem, "board": now.Name})
		}
		if now.Digest != told.Digest && told.Digest != "" {
			a.note("agent.board.changed", model.Info, "the device goes by another board file", map[string]string{"board": now.Name, "source": string(now.Source)})
		}
		told = now
		return false
	})
}

// imageBoard is the board whose image runs; empty where nobody says.
func imageBoard(report string) string {
	b, err := os.ReadFile(report)
	if err != nil {
		return ""
	}
	var r model.BootReport
	if json.Unmarshal(b, &r) != nil {
		return ""
	}
	return r.Board
}
