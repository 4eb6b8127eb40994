package commands

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// Order is a command for one node, as long as it is not done.
type Order struct {
	ID      wire.CommandID
	Node    string
	Command model.Command
	By      string
	Limit   time.Duration // that it may take
	Expires time.Time     // it is given up when it has not begun by then, by the monotonic clock
	// Told is called with each report that says something new, the last one final, one
	// after the other, and with the file that the command has made. The node hears
	// that its report has arrived when it returns nil, and tells it again otherwise.
	// What the node never says is told too: a failed report with code timeout or
	// unanswered, or with code expired where the node was not asked, and a cancelled one
	// where the command was taken back. The order is over when it returns nil, and not
	// before: it is told again otherwise.
	Told func(r wire.CommandReport, file []byte) error
}

// order is an Order on its way.
type order struct {
	Order
	sent    bool     // on some connection
	on      *session // on which it was sent last
	running bool
	over    bool
	last    wire.CommandReport
	held    bool // until the gateway knows the time
	timer   *time.Timer
	file    bytes.Buffer
	taking  bool // Told is being called
	// closing is how it ends, whatever the node would say; nil: it goes on. It is not handed
	// over any more.
	closing *wire.CommandReport
}

// session is a node's stream.
type session struct {
	nonce []byte // nil: a release that takes no commands
	since time.Time
	send  func(wire.Message)
}

// node is what is known of a node's commands.
type node struct {
	session   *session
	abilities []model.Ability // as last told
	known     bool
	orders    map[wire.CommandID]*order
}

const (
	maxOrders = 32               // unfinished, of a node
	reportLag = 30 * time.Second // for the report of what was handed over just in time
	endLag    = 60 * time.Second // for the report of what took all its time
	againIn   = 5 * time.Second  // an end that could not be stored is told again
)

// node returns what is known of a node; mu is held.
func (e *Engine) node(id string) *node {
	n := e.nodes[id]
	if n == nil {
		n = &node{orders: map[wire.CommandID]*order{}}
		e.nodes[id] = n
	}
	return n
}

// Attach begins a node's stream: nonce is that of its hello, since when its welcome
// was written. What waits for the node is handed over, what it was told before once
// more. send queues a message and does not wait.
func (e *Engine) Attach(id string, nonce []byte, since time.Time, send func(wire.Message)) (detach func()) {
	s := &session{nonce: nonce, since: since, send: send}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.node(id)
	n.session = s
	for _, o := range n.inOrder() {
		o.file.Reset()
		e.hand(n, o)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if n.session == s {
			n.session = nil
		}
	}
}

// inOrder returns the orders as they were made.
func (n *node) inOrder() []*order {
	var all []*order
	for _, o := range n.orders {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *order) int {
		if a.ID.After(b.ID) {
			return 1
		}
		return -1
	})
	return all
}

// hand hands an order to its node, if that is there, and not at another of the kind. One
// that has begun is not handed over again: the node remembers it, and says by itself
// what becomes of it. mu is held.
func (e *Engine) hand(n *node, o *order) {
	s := n.session
	if s == nil || s.nonce == nil || o.on == s || o.held || o.over || o.running || o.closing != nil {
		return
	}
	if o.taking && !o.sent {
		return // it is being taken back; if that fails it is handed over then
	}
	for _, before := range n.orders {
		if before.Command.Kind == o.Command.Kind && o.ID.After(before.ID) && !before.held && before.closing == nil {
			return // when that has ended
		}
	}
	left := time.Until(o.Expires)
	if left <= 0 && !o.sent {
		return // its timer is about to say so
	}
	deadline := time.Since(s.since) + left
	b, err := wire.Order{
		Node: o.Node, Session: s.nonce, ID: o.ID, Epoch: max(e.Epoch(), o.ID.Epoch), Deadline: uint64(max(deadline.Milliseconds(), 0)),
		Limit: uint64(o.Limit.Milliseconds()), By: o.By, Command: o.Command,
	}.Encode()
	if err != nil {
		e.Log.Error("a command cannot be signed", "node", o.Node, "err", err) // it was checked before
		return
	}
	o.sent, o.on = true, s
	s.send(wire.CommandMessage{Order: b, Signature: e.Key.Sign(wire.CommandContext, b)})
}

// errFull is returned where a node has too many orders.
var errFull = errors.New("the node has too many commands already")

// give makes an order of the node's; mu is held.
func (e *Engine) give(o *order) {
	n := e.node(o.Node)
	n.orders[o.ID] = o
	switch {
	case o.closing != nil:
		e.wait(n, o, 0, "")
	case o.running:
		e.wait(n, o, o.Limit+endLag, model.CodeTimeout)
	case !o.held:
		e.wait(n, o, time.Until(o.Expires), model.CodeExpired)
	}
	e.hand(n, o)
}

// wait has an order end with a code when nothing comes of it for that long. mu is held.
func (e *Engine) wait(n *node, o *order, d time.Duration, code string) {
	if o.timer != nil {
		o.timer.Stop()
	}
	if o.closing != nil {
		d = min(d, againIn) // whatever the node says
	}
	o.timer = time.AfterFunc(max(d, 0), func() { e.giveUp(n, o, code) })
}

// giveUp ends an order of which nothing came, or one that is closing. Where that cannot be
// stored it does so later, and the node may still say better until then.
func (e *Engine) giveUp(n *node, o *order, code string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := wire.CommandReport{ID: o.ID, State: model.CommandFailed, Code: code, Text: map[string]string{
		model.CodeExpired:    "the node was not there in time",
		model.CodeUnanswered: "the node was told, and has not said what became of it",
		model.CodeTimeout:    "the node has begun, and has not said in time how it ended",
	}[code]}
	switch {
	case o.over:
		return
	case o.taking: // its last word may be being written just now
		e.wait(n, o, time.Second, code)
		return
	case o.closing != nil:
		r = *o.closing
	case code == model.CodeExpired && o.running:
		return // another timer is set
	case code == model.CodeExpired && o.sent:
		e.wait(n, o, reportLag, model.CodeUnanswered)
		return
	}
	if e.tell(n, o, r, nil) != nil && !o.over {
		e.wait(n, o, againIn, code)
	}
}

// tell tells what became of an order; mu is held, but not meanwhile, and nobody else tells
// anything of it. The order is over when its end could be told.
func (e *Engine) tell(n *node, o *order, r wire.CommandReport, file []byte) error {
	o.taking = true
	err := func() error {
		e.mu.Unlock()
		defer e.mu.Lock()
		return o.Told(r, file)
	}()
	o.taking = false
	if err == nil && r.State.Final() && !o.over {
		e.end(n, o)
	}
	return err
}

// end takes an order off its node, for which another may have waited. mu is held.
func (e *Engine) end(n *node, o *order) {
	o.over = true
	if o.timer != nil {
		o.timer.Stop()
	}
	delete(n.orders, o.ID)
	for _, next := range n.inOrder() {
		e.hand(n, next)
	}
}

// Take handles what a node says of its commands. It returns false where the message is
// of another kind.
func (e *Engine) Take(ctx context.Context, id string, m wire.Message) bool {
	switch m := m.(type) {
	case wire.AbilitiesMessage:
		e.mu.Lock()
		defer e.mu.Unlock()
		n := e.node(id)
		n.abilities, n.known = m.Abilities, true
	case wire.CommandReport:
		e.report(ctx, id, m)
	case wire.CommandPart:
		e.part(id, m)
	default:
		return false
	}
	return true
}

// reply sends to a node that is there.
func (e *Engine) reply(id string, m wire.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.node(id).session; s != nil {
		s.send(m)
	}
}

// part takes a piece of a file. One that is not the next is left: the node learns what
// there is, and begins anew when it gets no further.
func (e *Engine) part(id string, m wire.CommandPart) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.node(id)
	if n.session == nil {
		return
	}
	o := n.orders[m.ID]
	if o == nil || !mayMakeFile(o.Command.Kind) {
		n.session.send(wire.CommandAck{ID: m.ID, State: model.CommandGone})
		return
	}
	switch have := uint64(o.file.Len()); {
	case m.Offset == 0: // from the beginning, perhaps once more
		o.file.Reset()
		o.file.Write(m.Data)
	case m.Offset == have:
		o.file.Write(m.Data)
	}
	if o.running && !o.taking && o.closing == nil {
		e.wait(n, o, o.Limit+endLag, model.CodeTimeout) // it moves
	}
	n.session.send(wire.CommandAck{ID: m.ID, Offset: uint64(o.file.Len())})
}

// mayMakeFile tells of the kinds that do; no other may fill the gateway's memory.
func mayMakeFile(k model.CommandKind) bool { return k == model.CommandCapture }

// report takes what a node says of a command.
func (e *Engine) report(ctx context.Context, id string, r wire.CommandReport) {
	e.mu.Lock()
	n := e.node(id)
	if o := n.orders[r.ID]; o != nil {
		defer e.mu.Unlock()
		e.heard(n, o, r)
		return
	}
	e.mu.Unlock()
	if !r.State.Final() {
		e.reply(id, wire.CommandCancel{ID: r.ID}) // it was taken back, or given up
	} else if e.late(ctx, id, r) != nil {
		return
	}
	e.reply(id, wire.CommandAck{ID: r.ID, State: r.State})
}

// heard takes a report of an order that is not over; mu is held.
func (e *Engine) heard(n *node, o *order, r wire.CommandReport) {
	if o.taking { // the same said twice: the second is answered when it comes again
		return
	}
	var file []byte
	if r.Size > 0 && r.State == model.CommandDone {
		if uint64(o.file.Len()) != r.Size {
			o.file.Reset() // the node sends it again
			return
		}
		file = bytes.Clone(o.file.Bytes())
	}
	news := r.State.Final() || !o.running || r.Progress != o.last.Progress || r.Text != o.last.Text
	if news && e.tell(n, o, r, file) != nil {
		return
	}
	o.last = r
	if !o.over && !o.running {
		o.running = true
		e.wait(n, o, o.Limit+endLag, model.CodeTimeout)
	}
	if n.session != nil {
		n.session.send(wire.CommandAck{ID: r.ID, State: r.State})
	}
}

// withdraw takes an order back. One that the node was never told is over at once, or where
// that cannot be stored goes on; where the node is there it has the last word, and
// otherwise nobody knows, which the report tells.
func (e *Engine) withdraw(o *order) (over bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.node(o.Node)
	switch {
	case o.over:
		return false, nil
	case o.closing != nil && !o.taking:
		err := e.tell(n, o, *o.closing, nil)
		return err == nil, err
	case o.closing == nil && o.sent && n.session != nil: // also while what it says is being stored, which may be that it has begun
		n.session.send(wire.CommandCancel{ID: o.ID})
		return false, nil
	case o.taking: // it is about to end
		return false, nil
	case o.running:
		return false, nil // what it has come to is told when the node is back
	}
	r := wire.CommandReport{ID: o.ID, State: model.CommandCancelled, Text: "it was taken back before the node had it"}
	if o.sent {
		r.Code, r.Text = model.CodeUnanswered, "it was taken back; the node was told of it before, is off now, and may have begun"
	}
	if err := e.tell(n, o, r, nil); err != nil {
		e.hand(n, o)
		return false, err
	}
	return true, nil
}

// Do has a node execute a command now, and waits until it has: the node has to be
// there. Each report is told before that. When ctx ends the command is taken back.
func (e *Engine) Do(ctx context.Context, o Order, told func(wire.CommandReport)) (wire.CommandReport, error) {
	if err := o.Command.Check(); err != nil {
		return wire.CommandReport{}, err
	}
	if err := e.Able(o.Node, o.Command.Kind); err != nil {
		return wire.CommandReport{}, err
	}
	last := make(chan wire.CommandReport, 1)
	o.Told = func(r wire.CommandReport, _ []byte) error {
		if told != nil {
			told(r)
		}
		if r.State.Final() {
			last <- r
		}
		return nil
	}
	w := &order{Order: o}
	e.mu.Lock()
	full := len(e.node(o.Node).orders) >= maxOrders
	if !full {
		e.give(w)
	}
	e.mu.Unlock()
	if full {
		return wire.CommandReport{}, errFull
	}
	select {
	case r := <-last:
		return r, nil
	case <-ctx.Done():
	}
	if over, _ := e.withdraw(w); over {
		return wire.CommandReport{}, context.Cause(ctx)
	}
	select {
	case r := <-last:
		return r, context.Cause(ctx)
	case <-time.After(reportLag):
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.end(e.node(o.Node), w)
	return wire.CommandReport{}, context.Cause(ctx)
}

// Able returns nil where a node is there and can do that, as far as it has said.
func (e *Engine) Able(id string, k model.CommandKind) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[id]
	switch {
	case n == nil || n.session == nil:
		return model.RefuseCommand(model.CodeUnreachable, "the node is not connected")
	case n.session.nonce == nil:
		return model.RefuseCommand(model.CodeUnsupported, "the node's release takes no commands")
	}
	for _, a := range n.abilities {
		if a.Kind == k && a.Code != "" {
			return model.RefuseCommand(a.Code, "%s", a.Text)
		}
	}
	return nil
}

// Abilities returns what a node has said that it can do, and whether it is there.
func (e *Engine) Abilities(id string) (list []model.Ability, known, online bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[id]
	if n == nil {
		return nil, false, false
	}
	return slices.Clone(n.abilities), n.known, n.session != nil && n.session.nonce != nil
}
