package announce

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/identity"
	"halo.internal/model"
)

// MaxSize is the most octets a message may have; it fits one frame on every
// transport.
const MaxSize = 512

// NonceSize is the length of a solicitation's nonce.
const NonceSize = 16

// Contexts of the signatures: a message of one kind is never one of the other.
const (
	gatewayContext = "halo announce gateway 1"
	nodeContext    = "halo announce node 1"
	orderContext   = "halo announce order 1"
	twinContext    = "halo announce twin 1"
	pastContext    = "halo announce past 1"
)

// Kinds of messages on the wire.
const (
	kindGateway = 1
	kindNode    = 2
	kindOrder   = 3
	kindTwin    = 4
	kindPast    = 5
)

// MaxBoot is the highest boot counter that a node is told of: what travels as JSON holds
// no higher one.
const MaxBoot = 1<<53 - 1

// Stamp orders one sender's messages for ever: nothing with the same or a lower
// stamp is taken a second time.
type Stamp struct {
	_     struct{} `cbor:",toarray"`
	Epoch uint64   // of the gateway: raised when it is restored or replaced; 0 for nodes
	Boot  uint64   // boot counter
	Seq   uint64   // within the boot
}

// After tells whether s is later than t.
func (s Stamp) After(t Stamp) bool {
	switch {
	case s.Epoch != t.Epoch:
		return s.Epoch > t.Epoch
	case s.Boot != t.Boot:
		return s.Boot > t.Boot
	}
	return s.Seq > t.Seq
}

// Gateway is what a gateway says of itself: unasked, or as the answer to the
// node whose nonce it carries.
type Gateway struct {
	_            struct{} `cbor:",toarray"`
	Stamp        Stamp
	Steps        uint32 // how often the sender's clock went back in this boot
	WireGuardKey []byte // X25519 public key
	APIPort      uint16 // 0 while gateway-api is not up
	CASHA256     []byte // of the network CA's certificate; empty while gateway-api is not up
	TimeMS       int64  // Unix milliseconds when it was signed, less half of the time that the question was held
	Quality      model.ClockQuality
	Nonce        []byte // of the solicitation that it answers; empty when unasked
	List         uint64 // version of the list of members in the stamp's epoch; 0: there is none yet
	Profile      uint64 // serial of the profile document in the stamp's epoch whose profile it uses; 0: there is none
	Next         uint64 // serial of the one that it prepares; 0: none
	NextKey      []byte // X25519 public key that it will have; empty: it keeps the one that it has
	Lacks        bool   // it has not the whole of the document in use, and takes it from any node
	Instance     uint64 // of the process that speaks, drawn when it starts: two with one key can be told apart
}

// Time returns when the message was signed, by the gateway's clock.
func (g Gateway) Time() time.Time { return time.UnixMilli(g.TimeMS).UTC() }

// Node is what another node says of itself; with a nonce it asks the gateway
// for an answer.
type Node struct {
	_            struct{} `cbor:",toarray"`
	Key          []byte   // Ed25519 public key, which signs
	Stamp        Stamp
	Steps        uint32
	WireGuardKey []byte
	Nonce        []byte // empty when no answer is wanted; half of it proves who asks, see proofOf
	Held         uint64 // serial of the latest profile document that its card keeps; 0: none
	Using        uint64 // serial of the one whose profile it uses; 0: it has that from its bundle
	NextKey      []byte // as a gateway's
	NextProof    []byte // that it has the private half, for the gateway: identity.ProvePossession; empty as NextKey
}

// Order is the gateway's word that all are to switch to the profile of a document.
// It says when relative to its being heard, since clocks differ.
type Order struct {
	_      struct{} `cbor:",toarray"`
	Epoch  uint64
	Serial uint64 // of the document
	InMS   uint32
}

// MaxOrder is the longest time ahead that an order may name.
const MaxOrder = time.Minute

// In returns when to switch, from now on.
func (o Order) In() time.Duration { return time.Duration(o.InMS) * time.Millisecond }

// Twin is what a gateway says to another one that has its key, to all: one of them
// stands down.
type Twin struct {
	_        struct{} `cbor:",toarray"`
	Instance uint64   // of the process that speaks
	Standing Standing
	Epoch    uint64
	Aside    bool   // it has stood down
	Nonce    []byte // asks for an answer; empty: for none
	Answer   []byte // nonce of the other that it answers; empty: none
}

// Past is what a gateway says to a node whose question is no later than one that it has
// heard of it, to that node alone. Nothing else becomes of such a question: it may be a
// recording. But it may be a node whose card keeps nothing, and which counts a start
// twice; that one has drawn the nonce, and goes on in a later start.
type Past struct {
	_     struct{} `cbor:",toarray"`
	Nonce []byte   // of the question
	Boot  uint64   // the highest boot counter that was heard of the node
}

// envelope is the form on the wire.
type envelope struct {
	_         struct{} `cbor:",toarray"`
	Kind      uint8
	Network   []byte // names the network, so that others' messages are not even verified
	Body      []byte
	Signature []byte
}

// networkTag is a short name of a network. It is no secret and proves nothing.
func networkTag(network identity.PublicKey) []byte {
	h := sha256.Sum256(append([]byte("halo announce tag 1"), network[:]...))
	return h[:4]
}

// Errors of Decode.
var (
	ErrForm    = errors.New("malformed message")
	ErrNetwork = errors.New("message of another network")
)

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxArrayElements: 16, MaxMapPairs: 16,
		MaxNestedLevels: 4, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("announce: " + err.Error()) // constant options are valid or they are not
	}
	return v
}

// Codec encodes and decodes one network's messages.
type Codec struct{ Network identity.PublicKey }

// EncodeGateway signs a gateway's message with the network's key.
func (c Codec) EncodeGateway(key identity.Key, g Gateway) ([]byte, error) {
	return c.seal(kindGateway, gatewayContext, key, g)
}

// EncodeNode signs a node's message with its key.
func (c Codec) EncodeNode(key identity.Key, n Node) ([]byte, error) {
	pub := key.Public()
	n.Key = pub[:]
	return c.seal(kindNode, nodeContext, key, n)
}

// EncodeOrder signs an order with the network's key.
func (c Codec) EncodeOrder(key identity.Key, o Order) ([]byte, error) {
	return c.seal(kindOrder, orderContext, key, o)
}

// EncodeTwin signs, with the network's key, what a gateway says to another.
func (c Codec) EncodeTwin(key identity.Key, t Twin) ([]byte, error) {
	return c.seal(kindTwin, twinContext, key, t)
}

// EncodePast signs, with the network's key, what a gateway says to a node of the past.
func (c Codec) EncodePast(key identity.Key, p Past) ([]byte, error) {
	return c.seal(kindPast, pastContext, key, p)
}

func (c Codec) seal(kind uint8, context string, key identity.Key, v any) ([]byte, error) {
	body, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("announce: %w", err)
	}
	tag := networkTag(c.Network)
	b, err := encMode.Marshal(envelope{Kind: kind, Network: tag, Body: body, Signature: key.Sign(context, signed(tag, body))})
	if err != nil {
		return nil, fmt.Errorf("announce: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("announce: expected a message of at most %d octets, got %d", MaxSize, len(b))
	}
	return b, nil
}

func signed(tag, body []byte) []byte { return append(append([]byte{}, tag...), body...) }

// open returns the envelope of a message for this network. Nothing in it is verified.
func (c Codec) open(b []byte) (e envelope, err error) {
	if len(b) > MaxSize {
		return e, fmt.Errorf("%w: expected at most %d octets, got %d", ErrForm, MaxSize, len(b))
	}
	if err := decMode.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if tag := networkTag(c.Network); string(e.Network) != string(tag) {
		return e, fmt.Errorf("%w: expected %x, got %x", ErrNetwork, tag, e.Network)
	}
	return e, nil
}

// Decode verifies a message and returns it as a Gateway, a Node, an Order, a Twin or a
// Past.
func (c Codec) Decode(b []byte) (any, error) {
	e, err := c.open(b)
	if err != nil {
		return nil, err
	}
	switch e.Kind {
	case kindGateway:
		return c.openGateway(e)
	case kindNode:
		return c.openNode(e)
	case kindOrder:
		return c.openOrder(e)
	case kindTwin:
		return c.openTwin(e)
	case kindPast:
		return c.openPast(e)
	}
	return nil, fmt.Errorf("%w: expected kind %d to %d, got %d", ErrForm, kindGateway, kindPast, e.Kind)
}

// GatewayEpoch verifies a message of the gateway and returns its epoch.
func (c Codec) GatewayEpoch(b []byte) (uint64, error) {
	m, err := c.Decode(b)
	if err != nil {
		return 0, err
	}
	g, ok := m.(Gateway)
	if !ok {
		return 0, fmt.Errorf("%w: expected kind %d, got another", ErrForm, kindGateway)
	}
	return g.Stamp.Epoch, nil
}

func (c Codec) openGateway(e envelope) (any, error) {
	if !c.Network.Verify(gatewayContext, signed(e.Network, e.Body), e.Signature) {
		return nil, fmt.Errorf("announcement of the gateway: %w", identity.ErrSignature)
	}
	var g Gateway
	if err := decMode.Unmarshal(e.Body, &g); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if err := size("WireGuard key", g.WireGuardKey, 32); err != nil {
		return nil, err
	}
	if err := size("CA hash", g.CASHA256, 0, sha256.Size); err != nil {
		return nil, err
	}
	if err := size("next WireGuard key", g.NextKey, 0, 32); err != nil {
		return nil, err
	}
	return g, size("nonce", g.Nonce, 0, NonceSize)
}

func (c Codec) openNode(e envelope) (any, error) {
	var n Node
	if err := decMode.Unmarshal(e.Body, &n); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if err := size("key", n.Key, 32); err != nil {
		return nil, err
	}
	if !identity.PublicKey(n.Key).Verify(nodeContext, signed(e.Network, e.Body), e.Signature) {
		return nil, fmt.Errorf("announcement of %s: %w", identity.PublicKey(n.Key).ID(), identity.ErrSignature)
	}
	if err := size("WireGuard key", n.WireGuardKey, 32); err != nil {
		return nil, err
	}
	if err := size("next WireGuard key", n.NextKey, 0, 32); err != nil {
		return nil, err
	}
	if err := size("proof of the next WireGuard key", n.NextProof, 0, identity.PossessionSize); err != nil {
		return nil, err
	}
	return n, size("nonce", n.Nonce, 0, NonceSize)
}

func (c Codec) openOrder(e envelope) (any, error) {
	if !c.Network.Verify(orderContext, signed(e.Network, e.Body), e.Signature) {
		return nil, fmt.Errorf("order of the gateway: %w", identity.ErrSignature)
	}
	var o Order
	if err := decMode.Unmarshal(e.Body, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if o.In() > MaxOrder {
		return nil, fmt.Errorf("%w: expected an order for the next %s, got one in %s", ErrForm, MaxOrder, o.In())
	}
	return o, nil
}

func (c Codec) openTwin(e envelope) (any, error) {
	if !c.Network.Verify(twinContext, signed(e.Network, e.Body), e.Signature) {
		return nil, fmt.Errorf("gateway's word to another: %w", identity.ErrSignature)
	}
	var t Twin
	if err := decMode.Unmarshal(e.Body, &t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if t.Standing > StandingServes {
		return nil, fmt.Errorf("%w: standing: expected at most %d, got %d", ErrForm, StandingServes, t.Standing)
	}
	if err := size("nonce", t.Nonce, 0, NonceSize); err != nil {
		return nil, err
	}
	return t, size("answered nonce", t.Answer, 0, NonceSize)
}

func (c Codec) openPast(e envelope) (any, error) {
	if !c.Network.Verify(pastContext, signed(e.Network, e.Body), e.Signature) {
		return nil, fmt.Errorf("gateway's word on a start: %w", identity.ErrSignature)
	}
	var p Past
	if err := decMode.Unmarshal(e.Body, &p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if p.Boot > MaxBoot {
		return nil, fmt.Errorf("%w: boot counter: expected at most %d, got %d", ErrForm, uint64(MaxBoot), p.Boot)
	}
	return p, size("nonce", p.Nonce, NonceSize)
}

func size(what string, b []byte, allowed ...int) error {
	for _, n := range allowed {
		if len(b) == n {
			return nil
		}
	}
	return fmt.Errorf("%w: %s: expected %v octets, got %d", ErrForm, what, allowed, len(b))
}
