// Package idempotency has a request that comes twice carried out once: what carries an
// Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) leaves a note of itself in
// the very transaction of what it does, and its answer beside, which is given again when
// the same request comes with the same key.
//
// Answers hold secrets that are kept nowhere else, such as the text of an API token. So
// they are encrypted (AES-256-GCM) under a key that takes both the client's key, of which
// nothing is stored, and the gateway's own: who has a copy of the database alone, or the
// card alone, reads none. A request is kept as a MAC under such a key, since it may hold
// a password, which a plain digest would let somebody guess at.
//
// A request that fails leaves nothing: it did nothing, and may be tried again.
package idempotency

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model/apitype"
)

// Bounds of what is kept. An answer that is longer is not.
const (
	life      = 24 * time.Hour
	maxKept   = 512
	maxOfOne  = 64 // caller
	maxAnswer = 8 << 10
	lastWrite = 5 * time.Second // for the answer, also when the client has gone
)

// Keeper may be used from any goroutine.
type Keeper struct {
	db     *store.DB
	clock  *clock.Clock
	secret []byte

	mu   sync.Mutex // guards busy
	busy map[[32]byte]bool
}

// New returns a keeper; key is the gateway's.
func New(db *store.DB, c *clock.Clock, key identity.Key) (*Keeper, error) {
	secret, err := hkdf.Key(sha256.New, key.Seed(), nil, "halo idempotency 1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("idempotency: %w", err)
	}
	return &Keeper{db: db, clock: c, secret: secret, busy: map[[32]byte]bool{}}, nil
}

// Request is one that carries a key.
type Request struct {
	Caller    string // keys are each caller's own
	Operation string // and each operation's
	Key       string // of Parse
	Body      []byte // all that is asked for, in one form
}

// keys are what follows from a request's key and the gateway's.
type keys struct {
	id           [32]byte
	request, aes []byte
}

func (k *Keeper) derive(r Request) (keys, error) {
	b, err := hkdf.Key(sha256.New, []byte(r.Key), k.secret, "halo idempotency 1\x00"+r.Caller+"\x00"+r.Operation, 3*32)
	if err != nil {
		return keys{}, fmt.Errorf("idempotency: %w", err)
	}
	mac := hmac.New(sha256.New, b[32:64])
	mac.Write(r.Body)
	return keys{id: [32]byte(b[:32]), request: mac.Sum(nil), aes: b[64:]}, nil
}

func (k keys) cipher() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.aes)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Do returns the answer that the same request has got before, or has f carry it out and
// keeps what that returns. f has to write with the context that it gets. Problems: the
// key came with another request; the first request is not done yet; it is done, but its
// answer was lost.
func (k *Keeper) Do(ctx context.Context, r Request, f func(context.Context) ([]byte, error)) (answer []byte, again bool, err error) {
	of, err := k.derive(r)
	if err != nil {
		return nil, false, err
	}
	if !k.begin(of.id) {
		return nil, false, apitype.Refuse(http.StatusConflict, apitype.ProblemKeyBusy, "Idempotency-Key: the first request with this key is not done yet").After(time.Second)
	}
	defer k.end(of.id)
	answer, there, err := k.kept(ctx, of)
	if err != nil || there {
		return answer, there, err
	}
	carrying, note := k.db.Ride(ctx, func(ctx context.Context, tx *sql.Tx) error { return k.insert(ctx, tx, r.Caller, of) })
	answer, err = f(carrying)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	if err != nil {
		if note.There() { // something was done on the way to the error: it may be tried again
			_ = k.remove(last, of) // else the client hears that its answer was lost, and looks
		}
		return nil, false, err
	}
	// What is not kept is done all the same: a note without an answer says so.
	_ = k.keep(last, r.Caller, of, answer, note.There())
	return answer, false, nil
}

func (k *Keeper) begin(id [32]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[id] {
		return false
	}
	k.busy[id] = true
	return true
}

func (k *Keeper) end(id [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, id)
}

// kept returns the answer that is there.
func (k *Keeper) kept(ctx context.Context, of keys) (answer []byte, there bool, err error) {
	var request, sealed []byte
	var created int64
	err = k.db.Read().QueryRowContext(ctx, `SELECT request, answer, created FROM idempotency WHERE id = ?`, of.id[:]).Scan(&request, &sealed, &created)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, nil
	case err != nil:
		return nil, false, store.Classify(err)
	case k.clock.Now().Sub(store.Time(created)).Abs() > life: // also where the clock has stepped back
		return nil, false, k.remove(ctx, of)
	case !hmac.Equal(request, of.request):
		return nil, false, apitype.Refuse(http.StatusUnprocessableEntity, apitype.ProblemKeyReused, "Idempotency-Key: expected the request with which this key came first, got another; a new request needs a new key")
	case sealed == nil:
		return nil, false, apitype.Refuse(http.StatusConflict, apitype.ProblemKeyLost, "Idempotency-Key: the request with this key was carried out, but its answer is not there any more; look at what is there, and use a new key for more")
	}
	c, err := of.cipher()
	if err == nil {
		answer, err = c.Open(nil, nil, sealed, of.id[:])
	}
	if err != nil {
		return nil, false, fmt.Errorf("kept answer: %w", err)
	}
	return answer, true, nil
}

// insert notes that a request is carried out, and makes room for that.
func (k *Keeper) insert(ctx context.Context, tx *sql.Tx, caller string, of keys) error {
	now := k.clock.Now()
	if _, err := tx.ExecContext(ctx, `DELETE FROM idempotency WHERE created NOT BETWEEN ? AND ?`, store.Millis(now.Add(-life)), store.Millis(now.Add(life))); err != nil {
		return err
	}
	for _, bound := range []struct {
		of   string
		most int
	}{{caller, maxOfOne}, {"", maxKept}} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE ? IN ('', caller) ORDER BY created DESC LIMIT -1 OFFSET ?)`, bound.of, bound.most-1); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO idempotency (id, caller, request, created) VALUES (?, ?, ?, ?)`, of.id[:], caller, of.request, store.Millis(now))
	return err
}

// keep adds the answer to the note, which is there already if the request has written
// anything.
func (k *Keeper) keep(ctx context.Context, caller string, of keys, answer []byte, there bool) error {
	if len(answer) > maxAnswer && there {
		return nil
	}
	c, err := of.cipher()
	if err != nil {
		return err
	}
	var sealed []byte
	if len(answer) <= maxAnswer {
		sealed = c.Seal(nil, nil, answer, of.id[:])
	}
	return k.db.Write(ctx, func(tx *sql.Tx) error {
		if !there {
			if err := k.insert(ctx, tx, caller, of); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE idempotency SET answer = ? WHERE id = ?`, sealed, of.id[:])
		return err
	})
}

func (k *Keeper) remove(ctx context.Context, of keys) error {
	return k.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM idempotency WHERE id = ?`, of.id[:])
		return err
	})
}

// Lengths of a key. One that is shorter could be another client's by chance, and be
// guessed at.
const (
	minKey = 16
	maxKey = 128
)

// Parse reads the field Idempotency-Key: a string in quotes, as the draft has it, or the
// same without, as most clients send it. Empty: there is none.
func Parse(field string) (string, error) {
	key := []byte(field)
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = key[1 : n-1]
	}
	if len(field) == 0 {
		return "", nil
	}
	if len(key) < minKey || len(key) > maxKey || bytes.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' || c == ',' }) {
		return "", apitype.Refuse(http.StatusBadRequest, "", `Idempotency-Key: expected %d to %d printable characters without blanks, quotes, backslashes and commas, such as a UUID`, minKey, maxKey)
	}
	return string(key), nil
}
