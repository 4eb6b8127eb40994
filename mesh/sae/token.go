package sae

import (
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"time"

	"halo.internal/model/dot11"
)

// tokenLife is how long an anti-clogging token is good for at least; at most
// twice as long.
const tokenLife = 30 * time.Second

// tokens makes and checks anti-clogging tokens (12.4.6) and remembers none of
// them: a token is a MAC over the sender's address and the very Commit that it
// lets in, which the sender has to repeat unchanged. One token is thus good for
// one computation.
type tokens struct {
	random   io.Reader
	now, old [sha256.Size]byte // keys of this period and the one before
	since    time.Time
}

// rotate draws a new key when the period is over.
func (t *tokens) rotate(now time.Time) error {
	if !t.since.IsZero() && now.Sub(t.since) < tokenLife {
		return nil
	}
	t.old = t.now
	if now.Sub(t.since) >= 2*tokenLife {
		// Nothing of before the pause is valid; a zero key would be.
		if _, err := io.ReadFull(t.random, t.old[:]); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(t.random, t.now[:]); err != nil {
		return err
	}
	t.since = now
	return nil
}

func token(key []byte, from dot11.MAC, v *values) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(from[:])
	h.Write(v.scalar[:])
	h.Write(v.element[:])
	return h.Sum(nil)
}

func (t *tokens) issue(now time.Time, from dot11.MAC, v *values) ([]byte, error) {
	if err := t.rotate(now); err != nil {
		return nil, err
	}
	return token(t.now[:], from, v), nil
}

func (t *tokens) valid(now time.Time, from dot11.MAC, v *values, got []byte) bool {
	if err := t.rotate(now); err != nil {
		return false
	}
	return hmac.Equal(got, token(t.now[:], from, v)) || hmac.Equal(got, token(t.old[:], from, v))
}

// budget is a token bucket: work that strangers may cause.
type budget struct {
	rate  float64 // per second
	burst float64
	have  float64
	at    time.Time
}

func newBudget(rate, burst float64, now time.Time) budget {
	return budget{rate: rate, burst: burst, have: burst, at: now}
}

// take spends one, if there is one.
func (b *budget) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.have = min(b.burst, b.have+d.Seconds()*b.rate)
		b.at = now
	}
	if b.have < 1 {
		return false
	}
	b.have--
	return true
}
