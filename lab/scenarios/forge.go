package scenarios

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/identity"
	"halo.internal/lab/host"
	"halo.internal/model/paths"
)

// Of batman-adv's packets: kind, version and head of those that all get.
const (
	batBroadcast     = 1
	batVersion       = 15
	batBroadcastHead = 14
)

// inBatman packs a frame into a packet of batman-adv to all.
func inBatman(from host.MAC, number int, inner host.Frame) []byte {
	b := []byte{batBroadcast, batVersion, 50, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	return slices.Concat(b, from[:], inner)
}

// announcement is the payload of a datagram that announces something to the whole
// mesh, if that is what the frame is.
func announcement(f host.Frame) ([]byte, bool) {
	p := f.Payload()
	if f.Kind() != paths.EtherTypeBatman || len(p) < batBroadcastHead+14+48 || p[0] != batBroadcast {
		return nil, false
	}
	inner := host.Frame(p[batBroadcastHead:])
	const udp, ipHead, udpHead = 17, 40, 8
	ip := inner.Payload()
	if inner.Kind() != host.TypeIPv6 || ip[6] != udp || binary.BigEndian.Uint16(ip[ipHead+2:]) != paths.AnnouncePort {
		return nil, false
	}
	return ip[ipHead+udpHead:], true
}

// Of announcements (mesh/announce): the kind that gateways send, and the context of
// its signature.
const (
	kindGateway    = 1
	gatewayContext = "halo announce gateway 1"
)

// envelope is the form of an announcement on the wire.
type envelope struct {
	_         struct{} `cbor:",toarray"`
	Kind      uint8
	Network   []byte
	Body      []byte
	Signature []byte
}

// forge makes announcements out of those that were overheard: the same again, the
// same with a bit that is another, and what they would say for a gateway that is
// somebody else, signed by a key of its own. Without any, the network's short name
// is a guess.
func forge(heard [][]byte) ([][]byte, error) {
	var all [][]byte
	key := identity.New()
	tag := make([]byte, 4)
	rand.Read(tag)
	for _, h := range heard {
		all = append(all, h)
		for at := range 8 {
			b := bytes.Clone(h)
			b[at*(len(b)-1)/7] ^= 1
			all = append(all, b)
		}
		var e envelope
		if err := cbor.Unmarshal(h, &e); err == nil && len(e.Network) == len(tag) {
			copy(tag, e.Network)
		}
	}
	wireguard := key.WireGuardPublic()
	for i := range 8 {
		body, err := cbor.Marshal([]any{
			[]uint64{1 << 40, 1, uint64(i)}, 0, wireguard[:], 8443, make([]byte, 32), time.Now().UnixMilli(), "gps", []byte{}, 1,
		})
		if err != nil {
			return nil, fmt.Errorf("forge an announcement: %w", err)
		}
		b, err := cbor.Marshal(envelope{Kind: kindGateway, Network: tag, Body: body, Signature: key.Sign(gatewayContext, slices.Concat(tag, body))})
		if err != nil {
			return nil, fmt.Errorf("forge an announcement: %w", err)
		}
		all = append(all, b)
	}
	return all, nil
}
