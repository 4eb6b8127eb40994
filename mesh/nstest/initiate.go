package nstest

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/curve25519"
)

// Initiate plays the initiator of WireGuard's handshake, whose private key is from, at
// a time of its own choice: who takes it takes none of an earlier time from that key
// any more. It waits so long for the response.
func Initiate(c net.Conn, from, to [32]byte, at time.Time, wait time.Duration) error {
	public, err := curve25519.X25519(from[:], curve25519.Basepoint)
	if err != nil {
		return err
	}
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s),
		Pattern:     noise.HandshakeIK, Initiator: true, Prologue: []byte("WireGuard v1 zx2c4 Jason@zx2c4.com"),
		PresharedKey: make([]byte, 32), PresharedKeyPlacement: 2,
		StaticKeypair: noise.DHKey{Private: from[:], Public: public}, PeerStatic: to[:],
	})
	if err != nil {
		return err
	}
	tai := binary.BigEndian.AppendUint64(nil, 0x400000000000000a+uint64(at.Unix()))
	body, _, _, err := hs.WriteMessage(nil, binary.BigEndian.AppendUint32(tai, 0))
	if err != nil {
		return err
	}
	msg := append([]byte{1, 0, 0, 0, 9, 9, 9, 9}, body...)
	macKey := blake2s.Sum256(append([]byte("mac1----"), to[:]...))
	mac, err := blake2s.New128(macKey[:])
	if err != nil {
		return err
	}
	mac.Write(msg)
	msg = append(mac.Sum(msg), make([]byte, 16)...)
	if _, err := c.Write(msg); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	answer := make([]byte, 200)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if n != 92 || answer[0] != 2 {
		return fmt.Errorf("expected a handshake response of 92 octets, got %d of type %d", n, answer[0])
	}
	return nil
}
