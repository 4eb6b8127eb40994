package cameras

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Link is what a signed link is for: one camera, and who has asked for it.
type Link struct {
	Node    string `json:"n"` // canonical ID
	Camera  string `json:"c"`
	Kind    string `json:"k"` // apitype.CameraStream or CameraSnapshot
	By      string `json:"b"` // kind of the principal
	Name    string `json:"u"`
	Session string `json:"s,omitempty"`
	Expires int64  `json:"x"` // Unix seconds
}

const maxTicket = 1024

// tickets are in a text without anything that a URL would have to escape, and in one
// spelling.
var tickets = base64.RawURLEncoding.Strict()

// newSeal makes what tickets are signed and sealed with, by a key that nobody keeps.
func newSeal() cipher.AEAD {
	var key [32]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // its only error is a key of another length
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // its only error is a cipher that is not aes's
	}
	return seal
}

// Sign makes the ticket of a link, which does not tell who has asked for it: addresses
// come into histories and logs. It is worth nothing to another process.
func (s *Service) Sign(l Link) (string, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return "", err
	}
	return tickets.EncodeToString(s.links.Seal(nil, nil, b, nil)), nil
}

// Open reads a ticket that has not expired.
func (s *Service) Open(ticket string) (Link, error) {
	refuse := apitype.Refuse(http.StatusNotFound, "", "the link is no good here, or has expired: ask for another one")
	if len(ticket) > maxTicket {
		return Link{}, refuse
	}
	sealed, err := tickets.DecodeString(ticket)
	if err != nil {
		return Link{}, refuse
	}
	b, err := s.links.Open(nil, nil, sealed, nil)
	if err != nil {
		return Link{}, refuse
	}
	var l Link
	if json.Unmarshal(b, &l) != nil || !model.ValidCameraID(l.Camera) {
		return Link{}, refuse
	}
	left := time.Unix(l.Expires, 0).Sub(s.Now())
	if left <= 0 || left > (apitype.MaxCameraLinkS+1)*time.Second { // the clock was set back
		return Link{}, refuse
	}
	return l, nil
}
