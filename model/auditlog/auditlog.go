// Package auditlog is the form of the audit log's records and the chain that
// they make, for the gateway that writes it and for whoever verifies it from
// afar. Each record holds the hash of the one before, so that a hash that
// somebody remembers vouches for all that came until then.
//
//	record = CBOR (RFC 8949, core deterministic) of the array
//	         [form, hash before, id, completes, time, actor, action, target, remote, status]
//	hash   = SHA-256(record)
//
// Form is 1; numbers are integers, time is in Unix milliseconds, and the rest are
// byte strings, which every text is, well-formed or not. The hash before is empty
// at the beginning of the chain. Completes is the ID of the entry whose outcome
// the record is, or 0. IDs have no holes. Whatever comes in later forms, the
// first three elements stay.
package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Kept is how many of the newest records are never dropped. A release may keep
// more, but not fewer: what is missing beyond that, somebody took.
const Kept = 50_000

// MaxRecord bounds a record in octets; the gateway's have some 200.
const MaxRecord = 64 << 10

const form = 1

// Record is an entry of the log, or the outcome of an earlier one.
type Record struct {
	Before    []byte // hash of the record before
	ID        int64
	Completes int64 // ID of the entry whose outcome this is; 0: an entry
	Time      int64 // Unix milliseconds
	Actor     string
	Action    string
	Target    string
	Remote    string
	Status    int64
}

type encoded struct {
	_         struct{} `cbor:",toarray"`
	Form      uint64
	Before    cbor.ByteString
	ID        int64
	Completes int64
	Time      int64
	Actor     cbor.ByteString
	Action    cbor.ByteString
	Target    cbor.ByteString
	Remote    cbor.ByteString
	Status    int64
}

var (
	encoding = must(cbor.CoreDetEncOptions().EncMode())
	decoding = must(cbor.DecOptions{MaxNestedLevels: 4, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("auditlog: " + err.Error()) // constant options are valid or they are not
	}
	return v
}

// Encode returns what is hashed.
func (r Record) Encode() []byte {
	return must(encoding.Marshal(encoded{
		Form: form, Before: cbor.ByteString(r.Before), ID: r.ID, Completes: r.Completes, Time: r.Time,
		Actor: cbor.ByteString(r.Actor), Action: cbor.ByteString(r.Action), Target: cbor.ByteString(r.Target), Remote: cbor.ByteString(r.Remote),
		Status: r.Status,
	}))
}

// Hash returns the record's hash, 32 octets.
func (r Record) Hash() []byte { return hash(r.Encode()) }

func hash(record []byte) []byte {
	h := sha256.Sum256(record)
	return h[:]
}

// Head is a place in the chain: a record's ID and hash. The zero value is the
// place before the first record.
type Head struct {
	ID   int64
	Hash []byte
}

// Equal tells whether both are the same place of the same chain.
func (h Head) Equal(o Head) bool { return h.ID == o.ID && bytes.Equal(h.Hash, o.Hash) }

// String is for people.
func (h Head) String() string { return fmt.Sprintf("record %d with the hash %s", h.ID, Hex(h.Hash)) }

// Hex is a hash for people: "none" where there is none.
func Hex(hash []byte) string {
	if len(hash) == 0 {
		return "none"
	}
	return hex.EncodeToString(hash)
}

// BreakError says where a chain does not go on as it should.
type BreakError struct {
	ID             int64 // of the first record that does not fit
	Expected, Came string
}

func (e *BreakError) Error() string {
	return fmt.Sprintf("record %d does not fit: expected %s, came %s", e.ID, e.Expected, e.Came)
}

// ErrDropped is returned by Trace where the records after the remembered ones
// were dropped for their age, so that nothing can be said.
var ErrDropped = errors.New("the records that followed were dropped for their age")

// Trace verifies that the chain leads from a head that somebody remembers to the
// one that the gateway shows now. page returns the encoded records after an ID,
// oldest first, as many as it likes; kept is Kept. The error is a *BreakError,
// ErrDropped, or page's. Trace asks for no more than it takes, whatever page
// answers.
func Trace(from, to Head, kept int64, page func(after int64) ([][]byte, error)) error {
	if to.ID < from.ID {
		return &BreakError{to.ID + 1, from.String() + " and those before it", fmt.Sprintf("a log that ends at %d", to.ID)}
	}
	at := from
	for at.ID < to.ID {
		records, err := page(at.ID)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return &BreakError{at.ID + 1, "a record", "none, though the log is said to end at " + fmt.Sprint(to.ID)}
		}
		for _, r := range records {
			next, err := at.follow(r)
			if gap, ok := errors.AsType[*gapError](err); ok {
				// Only at the beginning, and only so much: the rest is never dropped.
				if at.ID == from.ID && gap.id > from.ID+1 && to.ID-gap.id+1 >= kept {
					return ErrDropped
				}
				err = &BreakError{at.ID + 1, fmt.Sprintf("record %d", at.ID+1), fmt.Sprintf("record %d", gap.id)}
			}
			if err != nil {
				return err
			}
			if at = next; at.ID == to.ID {
				break
			}
		}
	}
	if !at.Equal(to) {
		return &BreakError{at.ID, at.String(), "the hash " + Hex(to.Hash)}
	}
	return nil
}

// gapError is a record that is not the next one.
type gapError struct{ id int64 }

func (e *gapError) Error() string { return fmt.Sprintf("record %d is not the next", e.id) }

// follow returns the place after an encoded record, if that is the next one.
func (h Head) follow(record []byte) (Head, error) {
	before, id, err := parse(record)
	if err != nil {
		return Head{}, &BreakError{h.ID + 1, "a record", err.Error()}
	}
	if id != h.ID+1 {
		return Head{}, &gapError{id}
	}
	if !bytes.Equal(before, h.Hash) {
		return Head{}, &BreakError{h.ID, h.String(), "the hash " + Hex(before)}
	}
	return Head{id, hash(record)}, nil
}

// parse reads what all forms have.
func parse(record []byte) (before []byte, id int64, err error) {
	const short = 3
	if len(record) > MaxRecord {
		return nil, 0, fmt.Errorf("one of %d octets, more than %d", len(record), MaxRecord)
	}
	var all []cbor.RawMessage
	if err := decoding.Unmarshal(record, &all); err != nil {
		return nil, 0, fmt.Errorf("what is no CBOR array (%w)", err)
	}
	if len(all) < short {
		return nil, 0, fmt.Errorf("an array of %d elements", len(all))
	}
	if err := decoding.Unmarshal(all[1], &before); err != nil {
		return nil, 0, fmt.Errorf("a hash before that is none (%w)", err)
	}
	if err := decoding.Unmarshal(all[2], &id); err != nil {
		return nil, 0, fmt.Errorf("an ID that is none (%w)", err)
	}
	return before, id, nil
}
