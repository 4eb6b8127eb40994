package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/model"
)

// A stream is a WebSocket over which each binary message is one CBOR array
// [type, body]. Bodies are maps with small integer keys, but for schema and
// batch, which are the octets of their own formats. Whoever gets a type that
// it does not know ignores the message, and keys that it does not know
// likewise: what is added comes in as new types and keys.
//
//	gateway                         node
//	  challenge   ───────────────▶
//	              ◀───────────────   hello
//	  welcome     ───────────────▶   (or refuse, and the end)
//	              ◀───────────────   status, schema, batch, event, neighbours
//	  ack, ack-events, refuse ───▶
//	  commands, see command.go ◀─▶   reports
//	  neighbours-wanted       ───▶
//	  board-wanted            ───▶   board
//	  inventory-wanted        ───▶   inventory
//
// The node sends a schema before the first batch that needs it, unless welcome
// named it. An ack means: committed. A refuse that names a batch or an event ends nothing;
// one that names none is followed by the end of the connection. Neighbours are not
// acknowledged: of a connection's first report all that the next ones say goes on, and
// a gateway that does not have what one goes on from asks for a whole one.

// StreamContext separates the signature of a hello from all others.
const StreamContext = "halo stream 1"

// Sizes and bounds of messages.
const (
	NonceSize  = 32
	MaxMessage = MaxBatch + 1<<10 // octets of a message
	MaxAcks    = 512              // names in one ack
	MaxSchemas = 512              // names in a welcome
	MaxText    = 512              // octets of a refusal's text or of a version

	MaxInterval = 24 * 60 * 60 // seconds between the sendings of a node
)

// Type numbers of messages. A number is never used again for another meaning.
const (
	typeChallenge = 1
	typeHello     = 2
	typeWelcome   = 3
	typeRefuse    = 4
	typeSchema    = 5
	typeBatch     = 6
	typeAck       = 7
	typeStatus    = 8
	typeEvent     = 9
	typeAckEvents = 10

	typeCommand          = 11
	typeReport           = 12
	typePart             = 13
	typeAckCommand       = 14
	typeCancel           = 15
	typeAbilities        = 16
	typeNeighbours       = 17
	typeNeighboursWanted = 18
	typeBoard            = 19
	typeBoardWanted      = 20
	typeInventory        = 21
	typeInventoryWanted  = 22
)

// Message is one of the types below.
type Message interface {
	kind() uint64
	check() error
}

// Challenge opens the stream.
type Challenge struct {
	Nonce []byte `cbor:"1,keyasint"` // NonceSize octets, never used before
}

// Hello proves who the node is.
type Hello struct {
	Key       []byte `cbor:"1,keyasint"` // Ed25519 public key
	Boot      uint64 `cbor:"2,keyasint"`
	Version   string `cbor:"3,keyasint"`
	Signature []byte `cbor:"4,keyasint"` // by Key, of SignedBytes, in StreamContext
	// Interval is how often the node sends, in seconds: after two of them without a
	// word the gateway asks for a sign of life. 0: not told.
	Interval uint64 `cbor:"5,keyasint,omitempty"`
	// Session is a nonce of SessionSize octets that was never used before: commands
	// are signed for it. None: the node takes no commands.
	Session []byte `cbor:"6,keyasint,omitempty"`
	// Life is drawn from the start of the machine, and the same until the next one: a key
	// that comes with one, with another, and with the first again is on two devices at
	// once. Empty: not told, which is another one where some were.
	Life []byte `cbor:"7,keyasint,omitempty"`
}

// MaxLife is the most octets of Hello.Life.
const MaxLife = 32

// Welcome admits the node.
type Welcome struct {
	Time    int64              `cbor:"1,keyasint"` // of the gateway, Unix milliseconds
	Clock   model.ClockQuality `cbor:"2,keyasint"`
	Schemas []SchemaID         `cbor:"3,keyasint,omitempty"` // that need not be sent
	// Boot is the highest of which the gateway has a batch or an event of the node; 0: it
	// has none, or does not tell. A node that has sent nothing in this start of its machine,
	// and does not count a higher one, has lost count with its card: it names what it has
	// by the next one, and begins the stream anew.
	Boot uint64 `cbor:"4,keyasint,omitempty"`
}

// Codes of a refusal.
const (
	RefuseUnauthorized  = "unauthorized"   // signature, nonce or host does not fit
	RefuseUnknown       = "unknown-node"   // not registered: join first
	RefuseRevoked       = "revoked"        // the node was shut out
	RefuseQuarantined   = "quarantined"    // its key was there twice at once: an admin has to release it
	RefuseBatch         = "bad-batch"      // that batch can never be taken
	RefuseUnknownSchema = "unknown-schema" // send the schema, then that batch again
	RefuseBusy          = "busy"           // cannot store now: try later, or send what ID names again later
)

// Refuse says no, to the node, or to one batch or event (then ID is set).
type Refuse struct {
	Code string   `cbor:"1,keyasint"`
	Text string   `cbor:"2,keyasint,omitempty"`
	ID   *BatchID `cbor:"3,keyasint,omitempty"`
	// Event: ID names an event. Earlier releases take it for a batch, and there is none.
	Event bool `cbor:"4,keyasint,omitempty"`
}

// SchemaMessage carries a schema.
type SchemaMessage struct{ Schema Schema }

// BatchMessage carries an encoded batch.
type BatchMessage struct{ Data []byte }

// Ack names batches that are committed.
type Ack struct {
	IDs []BatchID `cbor:"1,keyasint"`
}

// AckEvents names events that are committed.
type AckEvents struct {
	IDs []BatchID `cbor:"1,keyasint"`
}

// StatusMessage is the node's heartbeat.
type StatusMessage struct {
	Status model.NodeStatus `cbor:"1,keyasint"`
}

// EventMessage carries an event.
type EventMessage struct {
	Event model.Event `cbor:"1,keyasint"`
}

// NeighboursMessage is what a node sees around it. Node and boot are those of the
// stream, and are not sent.
type NeighboursMessage struct{ Report model.Report }

// NeighboursWanted asks for a whole report, whatever was sent.
type NeighboursWanted struct{}

// BoardMessage describes the node's board.
type BoardMessage struct {
	Board model.Board `cbor:"1,keyasint"`
}

// BoardWanted asks for it: the gateway has no description with the digest of the
// heartbeat.
type BoardWanted struct{}

// InventoryMessage tells what is on the node's buses.
type InventoryMessage struct {
	Digest    string          `cbor:"1,keyasint"` // as heartbeats name it
	Inventory model.Inventory `cbor:"2,keyasint"`
}

// InventoryWanted asks for it: the gateway has none with the digest of the heartbeat.
type InventoryWanted struct{}

// Unknown is a message of a type, or of a version of it, that this build does not know.
type Unknown struct{ Type uint64 }

func (Challenge) kind() uint64     { return typeChallenge }
func (Hello) kind() uint64         { return typeHello }
func (Welcome) kind() uint64       { return typeWelcome }
func (Refuse) kind() uint64        { return typeRefuse }
func (SchemaMessage) kind() uint64 { return typeSchema }
func (BatchMessage) kind() uint64  { return typeBatch }
func (Ack) kind() uint64           { return typeAck }
func (StatusMessage) kind() uint64 { return typeStatus }
func (EventMessage) kind() uint64  { return typeEvent }
func (AckEvents) kind() uint64     { return typeAckEvents }
func (u Unknown) kind() uint64     { return u.Type }

func (NeighboursMessage) kind() uint64 { return typeNeighbours }
func (NeighboursWanted) kind() uint64  { return typeNeighboursWanted }
func (BoardMessage) kind() uint64      { return typeBoard }
func (BoardWanted) kind() uint64       { return typeBoardWanted }
func (InventoryMessage) kind() uint64  { return typeInventory }
func (InventoryWanted) kind() uint64   { return typeInventoryWanted }

// SignedBytes is what a hello's signature covers: the nonce, so that it can't
// be replayed; the node's key and boot; and the host that the node dialled, so
// that whoever it dialled can't pass it on to another gateway.
func (h Hello) SignedBytes(nonce []byte, host string) []byte {
	b := append([]byte(nil), nonce...)
	b = append(b, h.Key...)
	b = binary.BigEndian.AppendUint64(b, h.Boot)
	return append(b, host...)
}

// Marshal returns the message as octets.
func Marshal(m Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	body := any(m)
	switch m := m.(type) {
	case SchemaMessage:
		body = cbor.RawMessage(m.Schema.Encode())
	case BatchMessage:
		body = m.Data
	case NeighboursMessage:
		body = neighboursOf(m.Report)
	case Unknown:
		return nil, fmt.Errorf("message: expected a known type, got %d", m.Type)
	}
	b, err := encoding.Marshal([]any{m.kind(), body})
	if err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("message: expected at most %d octets, got %d", MaxMessage, len(b))
	}
	return b, nil
}

// Unmarshal reads one message and checks its bounds. A type that is not known
// gives Unknown and no error.
func Unmarshal(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, malformed("message: expected at most %d octets, got %d", MaxMessage, len(b))
	}
	var f struct {
		_    struct{} `cbor:",toarray"`
		Type uint64
		Body cbor.RawMessage
	}
	if err := decoding.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: message: expected [type, body]: %w", ErrMalformed, err)
	}
	switch f.Type {
	case typeChallenge:
		return body[Challenge](f.Body)
	case typeHello:
		return body[Hello](f.Body)
	case typeWelcome:
		return body[Welcome](f.Body)
	case typeRefuse:
		return body[Refuse](f.Body)
	case typeAck:
		return body[Ack](f.Body)
	case typeAckEvents:
		return body[AckEvents](f.Body)
	case typeStatus:
		return body[StatusMessage](f.Body)
	case typeEvent:
		return body[EventMessage](f.Body)
	case typeCommand:
		return body[CommandMessage](f.Body)
	case typeReport:
		return body[CommandReport](f.Body)
	case typePart:
		return body[CommandPart](f.Body)
	case typeAckCommand:
		return body[CommandAck](f.Body)
	case typeCancel:
		return body[CommandCancel](f.Body)
	case typeAbilities:
		return body[AbilitiesMessage](f.Body)
	case typeNeighbours:
		return decodeNeighbours(f.Body)
	case typeNeighboursWanted:
		return body[NeighboursWanted](f.Body)
	case typeBoard:
		return body[BoardMessage](f.Body)
	case typeBoardWanted:
		return body[BoardWanted](f.Body)
	case typeInventory:
		return body[InventoryMessage](f.Body)
	case typeInventoryWanted:
		return body[InventoryWanted](f.Body)
	case typeSchema:
		s, err := DecodeSchema(f.Body)
		return SchemaMessage{s}, err
	case typeBatch:
		var m BatchMessage
		if err := decoding.Unmarshal(f.Body, &m.Data); err != nil {
			return nil, fmt.Errorf("%w: batch message: expected octets: %w", ErrMalformed, err)
		}
		return m, m.check()
	}
	return Unknown{f.Type}, nil
}

func body[M Message](b []byte) (Message, error) {
	var m M
	if err := decoding.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: %T: expected a map with integer keys: %w", ErrMalformed, m, err)
	}
	return m, m.check()
}
