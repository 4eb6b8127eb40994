package wire

import (
	"fmt"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/model"
)

// Commands go to a node over its stream. What the gateway signs is an order: the
// command, for that node alone, for this connection alone (by the nonce of the
// node's hello, so that a recorded order is worth nothing on another), and until a
// deadline that is counted from the welcome. Neither clock matters for it: both
// sides count by their own since they have met.
//
//	gateway                         node
//	              ◀───────────────   abilities
//	  command     ───────────────▶
//	              ◀───────────────   report: running
//	  ack-command ───────────────▶
//	              ◀───────────────   part, part …   (of a file, if it makes one)
//	  ack-command ───────────────▶   (each)
//	              ◀───────────────   report: done, failed, refused or cancelled
//	  ack-command ───────────────▶
//	  cancel      ───────────────▶   (at any time)
//
// A final report is sent again, on this connection and later ones, until it is
// acknowledged. A command that comes again is not executed again: its report is.

// CommandContext separates the signature of an order from all others.
const CommandContext = "halo command 1"

// Bounds of commands.
const (
	SessionSize  = 16       // octets of the nonce in a hello
	MaxOrder     = 16 << 10 // octets: of a template for a sensor, deflated, most
	PartSize     = 16 << 10
	MaxAbilities = 32
	maxActor     = 160
	maxCode      = 64
	maxMS        = 1 << 40 // 34 years
)

// CommandID names a command of one network for ever, and says which is later: the
// epoch in which the gateway made it, and its number there.
type CommandID struct {
	_      struct{} `cbor:",toarray"`
	Epoch  uint64   `json:"epoch"`
	Number uint64   `json:"number"`
}

// NewCommandID returns the name of command number of that epoch.
func NewCommandID(epoch, number uint64) CommandID { return CommandID{Epoch: epoch, Number: number} }

// String prints epoch.number.
func (i CommandID) String() string { return fmt.Sprintf("%d.%d", i.Epoch, i.Number) }

// After tells whether i was made after o.
func (i CommandID) After(o CommandID) bool {
	return i.Epoch > o.Epoch || i.Epoch == o.Epoch && i.Number > o.Number
}

func (i CommandID) check() error {
	if i.Epoch > MaxCounter || i.Number < 1 || i.Number > MaxCounter {
		return malformed("command: expected an epoch of at most 2^53-1 and a number from 1 to that, got %v", i)
	}
	return nil
}

// Order is what the gateway signs.
type Order struct {
	Node     string        `cbor:"1,keyasint"` // canonical ID
	Session  []byte        `cbor:"2,keyasint"` // nonce of the node's hello
	ID       CommandID     `cbor:"3,keyasint"`
	Epoch    uint64        `cbor:"4,keyasint"` // the gateway's at present
	Deadline uint64        `cbor:"5,keyasint"` // to be begun by, in milliseconds since the welcome
	Limit    uint64        `cbor:"6,keyasint"` // milliseconds that it may take
	By       string        `cbor:"7,keyasint"` // who gave it, for the node's events
	Command  model.Command `cbor:"8,keyasint"`
}

// strict is decoding that takes nothing which it does not know: whoever leaves out
// a part of an order that a later gateway has written does something else.
var strict = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	MaxNestedLevels:   8,
	MaxArrayElements:  16,
	MaxMapPairs:       32,
	UTF8:              cbor.UTF8RejectInvalid,
}.DecMode())

// Encode returns the octets that are signed.
func (o Order) Encode() ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b, err := encoding.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	if len(b) > MaxOrder {
		return nil, fmt.Errorf("order: expected at most %d octets, got %d", MaxOrder, len(b))
	}
	return b, nil
}

// DecodeOrder reads an order whose signature was verified. What it does not know in
// it, it does not take. The command itself is the reader's to check.
func DecodeOrder(b []byte) (Order, error) {
	var o Order
	if len(b) > MaxOrder {
		return o, malformed("order: expected at most %d octets, got %d", MaxOrder, len(b))
	}
	if err := strict.Unmarshal(b, &o); err != nil {
		return o, fmt.Errorf("%w: order: expected what this release knows: %w", ErrMalformed, err)
	}
	return o, o.check()
}

func (o Order) check() error {
	switch {
	case len(o.Node) > maxCode || len(o.Session) != SessionSize:
		return malformed("order: expected a node and a session of %d octets, got %d and %d", SessionSize, len(o.Node), len(o.Session))
	case o.Epoch > MaxCounter || o.ID.Epoch > o.Epoch:
		return malformed("order: expected an epoch that is not before that of the command, got %d and %v", o.Epoch, o.ID)
	case o.Deadline > maxMS || o.Limit < 1 || o.Limit > maxMS:
		return malformed("order: expected a deadline and a limit of at most %d ms, got %d and %d", uint64(maxMS), o.Deadline, o.Limit)
	case len(o.By) > maxActor:
		return malformed("order: expected an actor of at most %d octets, got %d", maxActor, len(o.By))
	}
	return o.ID.check()
}

// CommandMessage carries an order and the network's signature of it, in
// CommandContext.
type CommandMessage struct {
	Order     []byte `cbor:"1,keyasint"`
	Signature []byte `cbor:"2,keyasint"`
}

// CommandReport is what became of a command.
type CommandReport struct {
	ID       CommandID          `cbor:"1,keyasint"`
	State    model.CommandState `cbor:"2,keyasint"`
	Code     string             `cbor:"3,keyasint,omitempty"` // why not
	Text     string             `cbor:"4,keyasint,omitempty"` // for people
	Progress uint8              `cbor:"5,keyasint,omitempty"` // percent, while it runs
	Result   []byte             `cbor:"6,keyasint,omitempty"` // JSON of the kind's result
	Size     uint64             `cbor:"7,keyasint,omitempty"` // octets of the file, all of which came before
}

// CommandPart is a piece of the file that a command makes. Pieces come in order.
type CommandPart struct {
	ID     CommandID `cbor:"1,keyasint"`
	Offset uint64    `cbor:"2,keyasint"`
	Data   []byte    `cbor:"3,keyasint"`
}

// CommandAck says that a report is committed, or a part was taken.
type CommandAck struct {
	ID     CommandID          `cbor:"1,keyasint"`
	State  model.CommandState `cbor:"2,keyasint,omitempty"` // of the report; empty: of a part
	Offset uint64             `cbor:"3,keyasint,omitempty"` // of the file, up to which the gateway has it
}

// CommandCancel takes a command back.
type CommandCancel struct {
	ID CommandID `cbor:"1,keyasint"`
}

// AbilitiesMessage says what a node can be asked for.
type AbilitiesMessage struct {
	Abilities []model.Ability `cbor:"1,keyasint"`
}

func (CommandMessage) kind() uint64   { return typeCommand }
func (CommandReport) kind() uint64    { return typeReport }
func (CommandPart) kind() uint64      { return typePart }
func (CommandAck) kind() uint64       { return typeAckCommand }
func (CommandCancel) kind() uint64    { return typeCancel }
func (AbilitiesMessage) kind() uint64 { return typeAbilities }

func (m CommandMessage) check() error {
	if len(m.Order) < 1 || len(m.Order) > MaxOrder || len(m.Signature) != signatureSize {
		return malformed("command: expected an order of at most %d octets and a signature of %d, got %d and %d", MaxOrder, signatureSize, len(m.Order), len(m.Signature))
	}
	return nil
}

func (m CommandReport) check() error {
	switch m.State {
	case model.CommandRunning, model.CommandDone, model.CommandFailed, model.CommandRefused, model.CommandCancelled:
	default:
		return malformed("report: expected a state running, done, failed, refused or cancelled, got %.20q", m.State)
	}
	if len(m.Code) > maxCode || len(m.Text) > MaxText || m.Progress > 100 || len(m.Result) > model.CommandResultMax || m.Size > model.CommandFileMax {
		return malformed("report: expected a code of at most %d octets, a text of %d, 100 percent, a result of %d octets and a file of %d, got %d, %d, %d, %d and %d",
			maxCode, MaxText, model.CommandResultMax, model.CommandFileMax, len(m.Code), len(m.Text), m.Progress, len(m.Result), m.Size)
	}
	return m.ID.check()
}

func (m CommandPart) check() error {
	if len(m.Data) < 1 || len(m.Data) > PartSize || m.Offset > model.CommandFileMax || m.Offset+uint64(len(m.Data)) > model.CommandFileMax {
		return malformed("part: expected 1 to %d octets of a file of at most %d, got %d at %d", PartSize, model.CommandFileMax, len(m.Data), m.Offset)
	}
	return m.ID.check()
}

func (m CommandAck) check() error {
	if len(m.State) > maxCode || m.Offset > model.CommandFileMax {
		return malformed("acknowledgement of a command: expected an offset of at most %d, got %d", model.CommandFileMax, m.Offset)
	}
	return m.ID.check()
}

func (m CommandCancel) check() error { return m.ID.check() }

func (m AbilitiesMessage) check() error {
	if len(m.Abilities) > MaxAbilities {
		return malformed("abilities: expected at most %d, got %d", MaxAbilities, len(m.Abilities))
	}
	for _, a := range m.Abilities {
		if len(a.Kind) > maxCode || len(a.Code) > maxCode || len(a.Text) > MaxText {
			return malformed("abilities: expected kind and code of at most %d octets and a text of at most %d, got %d, %d and %d", maxCode, MaxText, len(a.Kind), len(a.Code), len(a.Text))
		}
	}
	return nil
}

// Clip shortens a text to what a message may hold.
func Clip(s string) string {
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "")
	}
	return s
}

// PeekOrder reads which command an order is about and for whom, also where the rest
// of it is of a later release.
func PeekOrder(b []byte) (id CommandID, node string, session []byte, err error) {
	var o struct {
		Node    string    `cbor:"1,keyasint"`
		Session []byte    `cbor:"2,keyasint"`
		ID      CommandID `cbor:"3,keyasint"`
	}
	if len(b) > MaxOrder {
		return id, "", nil, malformed("order: expected at most %d octets, got %d", MaxOrder, len(b))
	}
	if err := decoding.Unmarshal(b, &o); err != nil {
		return id, "", nil, fmt.Errorf("%w: order: expected node, session and ID: %w", ErrMalformed, err)
	}
	return o.ID, o.Node, o.Session, o.ID.check()
}
