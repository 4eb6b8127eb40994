package cameras

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
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

// Sign makes the ticket of a link. It is worth nothing to another process.
func (s *Service) Sign(l Link) (string, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(b)
	return text + "." + base64.RawURLEncoding.EncodeToString(s.seal(text)), nil
}

func (s *Service) seal(text string) []byte {
	m := hmac.New(sha256.New, s.links[:])
	m.Write([]byte("camera link\x00" + text))
	return m.Sum(nil)
}

// Open reads a ticket that has not expired.
func (s *Service) Open(ticket string) (Link, error) {
	refuse := apitype.Refuse(http.StatusNotFound, "", "the link is no good here, or has expired: ask for another one")
	text, sum, ok := strings.Cut(ticket, ".")
	mac, err := base64.RawURLEncoding.DecodeString(sum)
	if !ok || err != nil || len(ticket) > maxTicket || !hmac.Equal(mac, s.seal(text)) {
		return Link{}, refuse
	}
	var l Link
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(b, &l) != nil || !model.ValidCameraID(l.Camera) {
		return Link{}, refuse
	}
	left := time.Unix(l.Expires, 0).Sub(s.Now())
	if left <= 0 || left > (apitype.MaxCameraLinkS+1)*time.Second { // the clock was set back
		return Link{}, refuse
	}
	return l, nil
}
