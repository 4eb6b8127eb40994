package agent

import (
	"slices"
	"sync"

	"halo.internal/agent/spool"
	"halo.internal/model"
)

// maxEarly bounds what is remembered until there is a spool.
const maxEarly = 64

// news hands events to the spool. What happens before halo-mesh has said who the node is
// waits for it: outputs and buttons wait for nobody.
type news struct {
	mu    sync.Mutex // guards what follows
	spool *spool.Spool
	early []func(*spool.Spool) error // of more than maxEarly the last
}

// add notes an event.
func (n *news) add(kind string, s model.Severity, text string, fields map[string]string) error {
	add := func(to *spool.Spool) error { return to.AddEvent(kind, s, text, fields) }
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.spool != nil {
		return add(n.spool)
	}
	if len(n.early) == maxEarly {
		n.early = n.early[1:]
	}
	n.early = append(n.early, add)
	return nil
}

// open hands over what has waited, with the time of now: nobody may have known it before.
func (n *news) open(s *spool.Spool) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.spool = s
	for _, add := range n.early {
		if e := add(s); e != nil {
			err = e
		}
	}
	n.early = nil
	return err
}

// toldAll tells whether the gateway has all that is urgent; where there is no spool yet,
// nobody is going to take it from this process.
func (n *news) toldAll() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.spool == nil || !slices.ContainsFunc(n.spool.Items(), func(i spool.Item) bool { return i.Kind == spool.Event && i.Urgent })
}
