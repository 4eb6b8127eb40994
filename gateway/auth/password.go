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

	minPassword = 10
	maxPassword = 256
)

// hasher limits how many derivations run at a time: each costs memory and a
// core, and anybody may ask for one by trying to log in.
type hasher struct{ slots chan struct{} }

func newHasher() *hasher { return &hasher{slots: make(chan struct{}, argonConcurrent)} }

func (h *hasher) derive(ctx context.Context, password string, salt []byte, time, kib uint32, threads uint8) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
		defer h.release()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return argon2.IDKey([]byte(password), salt, time, kib, threads, argonKey), nil
}

// Turn waits for the turn of a derivation that takes as much RAM as one of a password,
// and returns what ends it.
func (s *Service) Turn(ctx context.Context) (done func(), err error) {
	select {
	case s.hasher.slots <- struct{}{}:
		return s.hasher.release, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release ends a derivation and gives its memory back at once: it is as much
// as all the rest, and the collector would let it lie for minutes.
func (h *hasher) release() {
	debug.FreeOSMemory()
	<-h.slots
}

// nobody is verified in vain for unknown users, which takes as long as for one
// there is. No password has this hash.
var nobody = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonKiB, argonTime, argonThreads,
	b64.EncodeToString(make([]byte, argonSalt)), b64.EncodeToString(make([]byte, argonKey)))

var b64 = base64.RawStdEncoding

// hash returns the PHC string of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	k, err := h.derive(ctx, password, salt, argonTime, argonKiB, argonThreads)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonKiB, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(k)), nil
}

var errPHC = errors.New("stored password: expected $argon2id$v=19$m=…,t=…,p=…$salt$hash")

func (h *hasher) verify(ctx context.Context, phc, password string) (bool, error) {
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
	got, err := h.derive(ctx, password, salt, time, kib, threads)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
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
