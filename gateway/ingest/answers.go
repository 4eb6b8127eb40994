package ingest

import (
	"sync"

	"halo.internal/model/wire"
)

// maxAnswers is how many answers may wait for a slow link; more means that the node does not
// read.
const maxAnswers = 1024

// answers are what is to be written to a node, acknowledgements together. It takes the room
// of what waits, and no more: nearly always that is nothing, of hundreds of nodes.
type answers struct {
	some chan struct{} // has a token while something waits

	mu      sync.Mutex // guards what follows
	list    []wire.Message
	waiting int
}

func newAnswers() *answers { return &answers{some: make(chan struct{}, 1)} }

// put adds an answer; false: too many wait.
func (a *answers) put(m wire.Message) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting >= maxAnswers {
		return false
	}
	a.waiting++
	if !a.join(m) {
		a.list = append(a.list, m)
	}
	select {
	case a.some <- struct{}{}:
	default: // it has one
	}
	return true
}

// join adds an acknowledgement to the one that waits last, if there is one.
func (a *answers) join(m wire.Message) bool {
	if len(a.list) == 0 {
		return false
	}
	last := &a.list[len(a.list)-1]
	switch m := m.(type) {
	case wire.Ack:
		if before, ok := (*last).(wire.Ack); ok && len(before.IDs)+len(m.IDs) <= wire.MaxAcks {
			*last = wire.Ack{IDs: append(before.IDs, m.IDs...)}
			return true
		}
	case wire.AckEvents:
		if before, ok := (*last).(wire.AckEvents); ok && len(before.IDs)+len(m.IDs) <= wire.MaxAcks {
			*last = wire.AckEvents{IDs: append(before.IDs, m.IDs...)}
			return true
		}
	}
	return false
}

// take returns all that waits, in order.
func (a *answers) take() []wire.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list, a.waiting = nil, 0
	return list
}
