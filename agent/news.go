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
// waits for it: outputs, buttons, chips and the board's power wait for nobody.
type news struct {
	mu    sync.Mutex // guards what follows
	spool *spool.Spool
	early []early // of more than maxEarly the last, and rather those that are no mere information
}

// early is an event that waits for the spool.
type early struct {
	severity model.Severity
	add      func(*spool.Spool) error
}

// add notes an event.
func (n *news) add(kind string, s model.Severity, text string, fields map[string]string) error {
	add := func(to *spool.Spool) error { return to.AddEvent(kind, s, text, fields) }
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.spool != nil {
		return add(n.spool)
	}
	n.early = append(n.early, early{s, add})
	if len(n.early) > maxEarly { // a contact that bounces must not displace what was reset
		at := max(slices.IndexFunc(n.early, func(e early) bool { return e.severity == model.Info }), 0)
		n.early = slices.Delete(n.early, at, at+1)
	}
	return nil
}

// open hands over what has waited, with the time of now: nobody may have known it before.
func (n *news) open(s *spool.Spool) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.spool = s
	for _, event := range n.early {
		if e := event.add(s); e != nil {
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
