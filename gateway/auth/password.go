package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"halo.internal/model/apitype"
)

// argon2id with the parameters that OWASP gives for 19 MiB, one at a time:
// more would neither fit beside the rest nor be faster on a board.
const (
	argonKiB        = 19 << 10
	argonTime       = 2
	argonThreads    = 1
	argonSalt       = 16
	argonKey        = 32
	argonConcurrent = 1

	// of one caller, at a time: more wrong ones are not heard even one after the other
	maxWaiting = freeFailures

	minPassword = 10
	maxPassword = 256
)

// hasher limits how many derivations run at a time: each costs memory and a
// core, and anybody may ask for one by trying to log in. They come in turn, and
// few of one caller may wait, so that nobody's line is before the others.
type hasher struct {
	slots chan struct{}

	mu      sync.Mutex     // guards what follows
	waiting map[string]int // by who asks; whose turn it is counts too
}

func newHasher() *hasher {
	return &hasher{slots: make(chan struct{}, argonConcurrent), waiting: map[string]int{}}
}

// turn waits for the turn of a derivation, and returns what ends it. who asks is a key
// of which few may wait; empty for somebody who has shown that he may.
func (h *hasher) turn(ctx context.Context, who string) (done func(), err error) {
	if !h.enter(who) {
		return nil, apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited,
			"%d attempts from where this comes wait for their turn; try again when they have ended", maxWaiting).After(time.Second)
	}
	select {
	case h.slots <- struct{}{}:
		return func() {
			<-h.slots
			h.leave(who)
		}, nil
	case <-ctx.Done():
		h.leave(who)
		return nil, ctx.Err()
	}
}

func (h *hasher) enter(who string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if who == "" {
		return true
	}
	if h.waiting[who] >= maxWaiting {
		return false
	}
	h.waiting[who]++
	return true
}

func (h *hasher) leave(who string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if who == "" {
		return
	}
	if h.waiting[who]--; h.waiting[who] == 0 {
		delete(h.waiting, who)
	}
}

// Turn waits for the turn of a derivation that takes as much RAM as one of a password,
// and returns what ends it.
func (s *Service) Turn(ctx context.Context) (done func(), err error) {
	end, err := s.hasher.turn(ctx, "")
	if err != nil {
		return nil, err
	}
	return func() {
		debug.FreeOSMemory()
		end()
	}, nil
}

// attempt runs what has to be derived to know whether somebody is who he says, once it
// is his turn. What fails has to be counted before it returns: of many attempts that
// wait, those after the last one that is free are then refused unheard.
func (s *Service) attempt(ctx context.Context, who string, by []counter, check func() error) error {
	if err := s.logins.allow(by...); err != nil {
		return err
	}
	done, err := s.hasher.turn(ctx, who)
	if err != nil {
		return err
	}
	defer done()
	if err := s.logins.allow(by...); err != nil {
		return err
	}
	return check()
}

// derive is argon2id, for who has his turn. It gives the memory back at once: it is as
// much as all the rest, and the collector would let it lie for minutes.
func derive(password string, salt []byte, time, kib uint32, threads uint8) []byte {
	defer debug.FreeOSMemory()
	return argon2.IDKey([]byte(password), salt, time, kib, threads, argonKey)
}

// nobody is verified in vain for unknown users, which takes as long as for one
// there is. No password has this hash.
var nobody = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonKiB, argonTime, argonThreads,
	b64.EncodeToString(make([]byte, argonSalt)), b64.EncodeToString(make([]byte, argonKey)))

var b64 = base64.RawStdEncoding

// hash returns the PHC string of a password, once it is the turn of who asks.
func (h *hasher) hash(ctx context.Context, who, password string) (string, error) {
	done, err := h.turn(ctx, who)
	if err != nil {
		return "", err
	}
	defer done()
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	k := derive(password, salt, argonTime, argonKiB, argonThreads)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonKiB, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(k)), nil
}

var errPHC = errors.New("stored password: expected $argon2id$v=19$m=…,t=…,p=…$salt$hash")

// verify compares a password with a PHC string, for who has his turn.
func verify(phc, password string) (bool, error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return false, errPHC
	}
	var kib, time uint32
	var threads uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &kib, &time, &threads); err != nil || kib > 32<<10 || time > 10 || time == 0 || threads == 0 {
		return false, errPHC
	}
	salt, err := b64.DecodeString(parts[4])
	if err != nil {
		return false, errPHC
	}
	want, err := b64.DecodeString(parts[5])
	if err != nil || len(want) != argonKey {
		return false, errPHC
	}
	return subtle.ConstantTimeCompare(derive(password, salt, time, kib, threads), want) == 1, nil
}

// checkPassword explains what a password lacks. Length is what counts; rules
// about characters make passwords worse.
func checkPassword(username, password string) error {
	weak := func(format string, args ...any) error {
		return apitype.Refuse(http.StatusUnprocessableEntity, apitype.ProblemPassword, format, args...)
	}
	n := utf8.RuneCountInString(password)
	switch {
	case !utf8.ValidString(password):
		return weak("password: expected UTF-8 text")
	case n < minPassword:
		return weak("password: expected at least %d characters, got %d; a few words are easy to remember", minPassword, n)
	case len(password) > maxPassword:
		return weak("password: expected at most %d octets, got %d", maxPassword, len(password))
	case username != "" && strings.Contains(strings.ToLower(password), strings.ToLower(username)) && n < minPassword+len(username):
		return weak("password: expected %d characters besides the user name", minPassword)
	case strings.Count(password, password[:1]) == len(password):
		return weak("password: expected more than one character repeated")
	}
	return nil
}
