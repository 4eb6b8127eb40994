package ingest

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A node of ours stays far below all of these; one that somebody has got hold of can
// neither wear out the card with commits nor fill it with events. Buckets outlive
// connections.
type allowance struct {
	what  string
	burst int
	every time.Duration // until one more
	then  string        // what becomes of those beyond
}

func (a *allowance) String() string {
	pace := fmt.Sprint("one in ", a.every)
	if a.every < time.Second {
		pace = fmt.Sprint(int(time.Second/a.every), " a second")
	}
	return fmt.Sprintf("expected at most %d %s at once and %s, got more: %s", a.burst, a.what, pace, a.then)
}

var (
	// Commits of their own, each of which is some writes to the card. A group has many urgent
	// readings, of one node and of others.
	urgentCommits  = allowance{"urgent readings or events that are committed at once", 30, 30 * time.Second, "they wait for the next commit, as others do"}
	backlogCommits = allowance{"commits of a backlog a second after the last", 300, 30 * time.Second, "it waits for the next commit, as others do"}

	nodeEvents   = allowance{"events", 2000, 5 * time.Second, "they are not taken yet"}
	newSchemas   = allowance{"new schemas", 64, 10 * time.Minute, "they are not taken yet"}
	nodeStatuses = allowance{"changes of its status", 30, 5 * time.Second, "the last one counts, later"}
	nodeStreams  = allowance{"connections", 60, 10 * time.Second, "it is to wait"}
	nodeBoards   = allowance{"descriptions of its board", 8, 10 * time.Minute, "they are not asked for yet"} // each may be written to the card with those of others
	// A sensor that comes and goes has its node tell anew what is there, each time.
	nodeInventories = allowance{"inventories of its buses", 16, 2 * time.Minute, "they are not asked for yet"}
	nodeReports     = allowance{"reports of neighbours", 10, 2 * time.Second, "they are left out"}

	// What is stored of a node, by telemetry.Weight: a backlog of four times what a spool
	// usually holds, and then two thousand readings a second.
	nodeOctets = allowance{"octets of readings", 256 << 20, time.Second / (4 << 10), "they are not taken yet"}
)

// maxAllowed is of how many nodes buckets are kept: more than there are members.
const maxAllowed = 8192

// allowances holds nodes to theirs. The zero value is ready.
type allowances struct {
	mu    sync.Mutex // guards nodes
	nodes map[string]map[*allowance]*rate.Limiter
}

// of returns a node's bucket.
func (a *allowances) of(node string, kind *allowance) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes == nil || len(a.nodes) >= maxAllowed && a.nodes[node] == nil {
		a.nodes = map[string]map[*allowance]*rate.Limiter{}
	}
	if a.nodes[node] == nil {
		a.nodes[node] = map[*allowance]*rate.Limiter{}
	}
	l := a.nodes[node][kind]
	if l == nil {
		l = rate.NewLimiter(rate.Every(kind.every), kind.burst)
		a.nodes[node][kind] = l
	}
	return l
}

// allow tells whether a node may have one more, which then counts.
func (c *session) allow(kind *allowance) bool {
	if c.server.allowances.of(c.node, kind).Allow() {
		return true
	}
	c.server.report("stream.held-back", c.node, kind.String(), c.remote)
	return false
}

// may tells whether a node may have n more, which count once they are taken: had.
func (c *session) may(kind *allowance, n int) bool {
	if c.server.allowances.of(c.node, kind).Tokens() >= float64(n) {
		return true
	}
	c.server.report("stream.held-back", c.node, kind.String(), c.remote)
	return false
}

// had counts what was taken of a node. Of what was on its way together it may be some more
// than the node may have: then it waits the longer for more.
func (c *session) had(kind *allowance, n int) {
	c.server.allowances.of(c.node, kind).ReserveN(time.Now(), n)
}
