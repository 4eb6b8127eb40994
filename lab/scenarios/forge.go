package scenarios

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/identity"
	"halo.internal/lab/host"
	"halo.internal/model/paths"
)

// Of batman-adv's packets: kind, version and lifetime of those that all get.
const (
	batBroadcast = 1
	batVersion   = 15
	batLife      = 50
)

// inBatman packs a frame into a packet of batman-adv to all.
func inBatman(from host.MAC, number int, inner host.Frame) []byte {
	b := []byte{batBroadcast, batVersion, batLife, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	return slices.Concat(b, from[:], inner)
}

// announced is the payload of a datagram that announces something to the whole mesh,
// if that is what the frame is.
func announced(f host.Frame) ([]byte, bool) {
	const udp, ipHead, udpHead = 17, 40, 8
	ip := f.Payload()
	if f.Kind() != host.TypeIPv6 || len(ip) < ipHead+udpHead || ip[6] != udp || binary.BigEndian.Uint16(ip[ipHead+2:]) != paths.AnnouncePort {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(ip[ipHead+4:]))
	if n < udpHead || n > len(ip)-ipHead {
		return nil, false
	}
	return ip[ipHead+udpHead : ipHead+n], true
}

// Of announcements (mesh/announce): kinds, and the contexts of their signatures.
const (
	kindGateway = 1
	kindOrder   = 3
	kindTwin    = 4
	kindNone    = 99

	gatewayContext = "halo announce gateway 1"
	orderContext   = "halo announce order 1"
	twinContext    = "halo announce twin 1"
)

// Why announcements are ignored, as members name it in their status.
const (
	ignoredForm      = "malformed"
	ignoredNetwork   = "other network"
	ignoredSignature = "forged"
	ignoredOld       = "old or replayed"
)

// envelope is the form of an announcement on the wire.
type envelope struct {
	_         struct{} `cbor:",toarray"`
	Kind      uint8
	Network   []byte
	Body      []byte
	Signature []byte
}

// networkTag is the short name of a network that its announcements begin with, which
// is no secret: messages of others are dropped before their signature is looked at.
func networkTag(network identity.PublicKey) []byte {
	h := sha256.Sum256(slices.Concat([]byte("halo announce tag 1"), network[:]))
	return h[:4]
}

// forgery is an announcement that is not to be believed, and why.
type forgery struct {
	what   string
	text   []byte
	reason string
}

// ofGateway tells whether an announcement is one of a gateway that nobody has asked for.
func ofGateway(text []byte) (e envelope, body []any, ok bool) {
	if cbor.Unmarshal(text, &e) != nil || e.Kind != kindGateway || cbor.Unmarshal(e.Body, &body) != nil {
		return e, body, false
	}
	return e, body, len(body) >= gatewayFields
}

// Places in what a gateway says of itself (announce.Gateway).
const (
	atStamp       = 0
	atKey         = 2
	gatewayFields = 14
)

// forge makes forgeries out of a gateway's announcement that was overheard: the same
// again, the same with something changed, what it would say of a gateway that is
// somebody else and of a higher epoch, signed by a key of its own, and orders and words
// between gateways likewise. All that is known of the network is known to the forger,
// but for its key.
func forge(network identity.PublicKey, heard []byte) (all []forgery, err error) {
	e, body, ok := ofGateway(heard)
	if !ok || !bytes.Equal(e.Network, networkTag(network)) {
		return nil, fmt.Errorf("forge: expected an announcement of the gateway with the network's tag %x, got %x", networkTag(network), heard)
	}
	add := func(what, reason string, e envelope) {
		b, marshalling := cbor.Marshal(e)
		if marshalling != nil {
			err = fmt.Errorf("forge %s: %w", what, marshalling)
		}
		all = append(all, forgery{what, b, reason})
	}
	all = append(all,
		forgery{"a recording", heard, ignoredOld},
		forgery{"a recording without its end", heard[:len(heard)-1], ignoredForm},
		forgery{"a recording with an octet behind", append(bytes.Clone(heard), 0), ignoredForm})
	for i := range 4 {
		damaged := e
		damaged.Body = flipped(e.Body, i*(len(e.Body)-1)/3)
		add("a recording with another body", ignoredSignature, damaged)
	}
	for _, i := range []int{0, len(e.Signature) - 1} {
		damaged := e
		damaged.Signature = flipped(e.Signature, i)
		add("a recording with another signature", ignoredSignature, damaged)
	}
	for _, other := range []struct {
		what, reason string
		kind         uint8
		network      []byte
	}{
		{"a recording as an order", ignoredSignature, kindOrder, e.Network},
		{"a recording as a word between gateways", ignoredSignature, kindTwin, e.Network},
		{"a recording of no kind", ignoredForm, kindNone, e.Network},
		{"a recording for another network", ignoredNetwork, kindGateway, flipped(e.Network, 0)},
	} {
		add(other.what, other.reason, envelope{Kind: other.kind, Network: other.network, Body: e.Body, Signature: e.Signature})
	}

	key := identity.New()
	wireguard := key.WireGuardPublic()
	stamp, ok := body[atStamp].([]any)
	if !ok || len(stamp) != 3 {
		return nil, fmt.Errorf("forge: expected a stamp of three numbers, got %v", body[atStamp])
	}
	epoch, ok := stamp[0].(uint64)
	if !ok {
		return nil, fmt.Errorf("forge: expected an epoch, got %v", stamp[0])
	}
	another := slices.Clone(body)
	another[atStamp], another[atKey] = []any{epoch + 1, stamp[1], stamp[2]}, wireguard[:]
	nonce := make([]byte, 16)
	for _, own := range []struct {
		what    string
		kind    uint8
		context string
		body    []any
	}{
		{"another gateway", kindGateway, gatewayContext, another},
		{"another gateway's order", kindOrder, orderContext, []any{epoch, uint64(1) << 40, 1000}},
		{"another gateway's word to the first", kindTwin, twinContext, []any{uint64(1), 0, epoch + 1, false, nonce, []byte{}}},
	} {
		b, err := cbor.Marshal(own.body)
		if err != nil {
			return nil, fmt.Errorf("forge %s: %w", own.what, err)
		}
		add(own.what, ignoredSignature, envelope{Kind: own.kind, Network: e.Network, Body: b, Signature: key.Sign(own.context, slices.Concat(e.Network, b))})
		add(own.what+", signed by a recording", ignoredSignature, envelope{Kind: own.kind, Network: e.Network, Body: b, Signature: e.Signature})
	}
	return all, err
}

// flipped returns b with one bit that is another.
func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}
