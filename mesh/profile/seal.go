package profile

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"halo.internal/identity"
	"halo.internal/model/order"
)

// sealedSize is the length of the document's key, sealed for one member.
const sealedSize = chacha20poly1305.KeySize + chacha20poly1305.Overhead

// noNonce is a nonce of zeros: every key here encrypts one thing.
var noNonce = make([]byte, chacha20poly1305.NonceSize)

// seal encrypts the secrets and makes the entries of the members.
func (d *Document) seal(random io.Reader, members []identity.PublicKey) error {
	var secret, key [32]byte
	for _, b := range []*[32]byte{&secret, &key} {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return fmt.Errorf("profile document: %w", err)
		}
	}
	ephemeral, err := ecdh.X25519().NewPrivateKey(secret[:])
	if err != nil {
		return fmt.Errorf("profile document: %w", err)
	}
	d.ephemeral = [32]byte(ephemeral.PublicKey().Bytes())
	var secrets [][]byte
	for _, m := range d.meshes() {
		secrets = append(secrets, []byte(m.PSK))
	}
	plain, err := encMode.Marshal(secrets)
	if err != nil {
		return fmt.Errorf("profile document: %w", err)
	}
	d.box = aead(key[:]).Seal(nil, noNonce, plain, d.bound())
	seen := map[identity.PublicKey]bool{}
	for _, m := range members {
		if seen[m] {
			continue
		}
		seen[m] = true
		to, err := m.Exchange()
		if err != nil {
			continue
		}
		shared, err := ephemeral.ECDH(to)
		if err != nil {
			continue
		}
		e := entry{tag: tagOf(m)}
		aead(d.keyFor(shared, m)).Seal(e.sealed[:0], noNonce, key[:], nil)
		d.entries = append(d.entries, e)
	}
	if len(d.entries) == 0 || len(d.entries) > MaxMembers {
		return fmt.Errorf("%w: expected 1 to %d members, got %d", ErrForm, MaxMembers, len(d.entries))
	}
	order.By(d.entries, func(a, b entry) int { return bytes.Compare(a.tag[:], b.tag[:]) })
	return nil
}

// Open returns the profiles with their secrets. The error wraps ErrNoMember where
// the document is not for that node, as after its revocation.
func (d Document) Open(key identity.Key) (Opened, error) {
	i, ok := d.find(key.Public())
	if !ok {
		return Opened{}, fmt.Errorf("%w: it has no entry for %s", ErrNoMember, key.ID())
	}
	from, err := ecdh.X25519().NewPublicKey(d.ephemeral[:])
	if err != nil {
		return Opened{}, fmt.Errorf("%w: ephemeral key: %w", ErrForm, err)
	}
	shared, err := key.Exchange().ECDH(from)
	if err != nil {
		return Opened{}, fmt.Errorf("%w: ephemeral key: %w", ErrForm, err)
	}
	content, err := aead(d.keyFor(shared, key.Public())).Open(nil, noNonce, d.entries[i].sealed[:], nil)
	if err != nil {
		return Opened{}, fmt.Errorf("%w: its entry for %s does not open", ErrForm, key.ID())
	}
	plain, err := aead(content).Open(nil, noNonce, d.box, d.bound())
	if err != nil {
		return Opened{}, fmt.Errorf("%w: its secrets do not open", ErrForm)
	}
	var secrets [][]byte
	if err := decMode.Unmarshal(plain, &secrets); err != nil || len(secrets) != 1+len(d.Former) {
		return Opened{}, fmt.Errorf("%w: expected a secret for each of %d profiles", ErrForm, 1+len(d.Former))
	}
	o := Opened{Document: d}
	o.Mesh.PSK = string(secrets[0])
	o.Former = slices.Clone(d.Former)
	for i := range o.Former {
		o.Former[i].Mesh.PSK = string(secrets[1+i])
	}
	if err := o.check(true); err != nil {
		return Opened{}, err
	}
	return o, nil
}

// Opened is a document whose profiles are complete. It prints without its secrets.
type Opened struct{ Document }

// String names the document.
func (o Opened) String() string {
	return fmt.Sprintf("profile document %d of epoch %d", o.Serial, o.Epoch)
}

// GoString is String: %#v prints no secret either.
func (o Opened) GoString() string { return o.String() }

// Format has every verb print the name alone.
func (o Opened) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

func aead(key []byte) cipher.AEAD {
	a, err := chacha20poly1305.New(key)
	if err != nil {
		panic("profile: " + err.Error()) // every key here has 32 octets
	}
	return a
}

// keyFor is the key under which the document's is sealed for a member.
func (d Document) keyFor(shared []byte, member identity.PublicKey) []byte {
	key, err := hkdf.Key(sha256.New, shared, d.ephemeral[:], string(append([]byte("halo profile seal 1\x00"), append(d.bound(), member[:]...)...)), chacha20poly1305.KeySize)
	if err != nil {
		panic("profile: " + err.Error()) // 32 octets are always within HKDF's limit
	}
	return key
}

// bound is what ties everything sealed to this document.
func (d Document) bound() []byte {
	b := append([]byte{}, d.network[:]...)
	b = binary.BigEndian.AppendUint64(b, d.Epoch)
	return binary.BigEndian.AppendUint64(b, d.Serial)
}
