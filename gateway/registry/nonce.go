package registry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"halo.internal/identity"
)

const (
	nonceLife     = 2 * time.Minute
	nonceBody     = 16 // when it was made, and randomness
	nonceSize     = nonceBody + sha256.Size
	maxUsedNonces = 4096
	reportEvery   = 10 * time.Minute // of the same refusal of the same node
	maxReports    = 1024
)

var (
	errNonce     = errors.New("the nonce is unknown or has ended")
	errNonceUsed = errors.New("the nonce was used already")
)

// nonces makes and checks the nonces of join requests. One carries its own
// time and a MAC, so that asking for it costs the gateway no memory; only used
// ones are remembered, until they end by themselves. Time here is that of the
// process: the wall clock may step.
type nonces struct {
	key   [32]byte
	start time.Time
	now   func() time.Time

	mu       sync.Mutex // guards what follows
	used     map[string]time.Duration
	reported map[string]time.Duration
}

func newNonces() *nonces {
	n := &nonces{start: time.Now(), now: time.Now, used: map[string]time.Duration{}, reported: map[string]time.Duration{}}
	rand.Read(n.key[:])
	return n
}

func (n *nonces) age() time.Duration { return n.now().Sub(n.start) }

func (n *nonces) mac(body []byte, key identity.PublicKey) []byte {
	m := hmac.New(sha256.New, n.key[:])
	m.Write(body)
	m.Write(key[:])
	return m.Sum(nil)
}

// make returns a nonce for that node.
func (n *nonces) make(key identity.PublicKey) string {
	body := make([]byte, nonceBody)
	binary.BigEndian.PutUint64(body, uint64(n.age()))
	rand.Read(body[8:])
	return base64.StdEncoding.EncodeToString(append(body, n.mac(body, key)...))
}

// use takes a nonce once.
func (n *nonces) use(key identity.PublicKey, text string) error {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != nonceSize || !hmac.Equal(n.mac(b[:nonceBody], key), b[nonceBody:]) {
		return errNonce
	}
	now, made := n.age(), time.Duration(binary.BigEndian.Uint64(b))
	if now-made > nonceLife {
		return errNonce
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.used[text]; ok {
		return errNonceUsed
	}
	if len(n.used) >= maxUsedNonces {
		for t, at := range n.used {
			if now-at > nonceLife {
				delete(n.used, t)
			}
		}
		if len(n.used) >= maxUsedNonces {
			return errNonce // a flood: refuse rather than forget one that could be replayed
		}
	}
	n.used[text] = made
	return nil
}

// mayReport tells whether what becomes an event; the same thing over and over
// does not.
func (n *nonces) mayReport(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.age()
	if at, ok := n.reported[what]; ok && now-at < reportEvery {
		return false
	}
	if len(n.reported) >= maxReports {
		for w, at := range n.reported {
			if now-at >= reportEvery {
				delete(n.reported, w)
			}
		}
		if len(n.reported) >= maxReports {
			return false
		}
	}
	n.reported[what] = now
	return true
}
