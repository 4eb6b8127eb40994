package wire

import (
	"crypto/ed25519"
	"slices"
)

const signatureSize = ed25519.SignatureSize

func (c Challenge) check() error {
	if len(c.Nonce) != NonceSize {
		return malformed("challenge: expected a nonce of %d octets, got %d", NonceSize, len(c.Nonce))
	}
	return nil
}

func (h Hello) check() error {
	switch {
	case len(h.Key) != ed25519.PublicKeySize:
		return malformed("hello: expected a key of %d octets, got %d", ed25519.PublicKeySize, len(h.Key))
	case len(h.Signature) != ed25519.SignatureSize:
		return malformed("hello: expected a signature of %d octets, got %d", ed25519.SignatureSize, len(h.Signature))
	case h.Boot < 1 || h.Boot > MaxCounter:
		return malformed("hello: expected a boot counter of 1 to 2^53-1, got %d", h.Boot)
	case h.Interval > MaxInterval:
		return malformed("hello: expected an interval of at most %d s, got %d", MaxInterval, h.Interval)
	case len(h.Session) != 0 && len(h.Session) != SessionSize:
		return malformed("hello: expected a session of %d octets or none, got %d", SessionSize, len(h.Session))
	case len(h.Life) > MaxLife:
		return malformed("hello: expected a life of at most %d octets, got %d", MaxLife, len(h.Life))
	case len(h.Version) > MaxText:
		return malformed("hello: expected a version of at most %d octets, got %d", MaxText, len(h.Version))
	}
	return nil
}

func (w Welcome) check() error {
	if !slices.Contains(qualities[:], w.Clock) {
		return malformed("welcome: expected a clock quality none, login, rtc, gateway or gps, got %.20q", w.Clock)
	}
	if len(w.Schemas) > MaxSchemas {
		return malformed("welcome: expected at most %d schemas, got %d", MaxSchemas, len(w.Schemas))
	}
	if w.Boot > MaxCounter {
		return malformed("welcome: expected a boot counter of at most 2^53-1, got %d", w.Boot)
	}
	return nil
}

func (r Refuse) check() error {
	if len(r.Code) < 1 || len(r.Code) > 64 || len(r.Text) > MaxText {
		return malformed("refuse: expected a code of 1 to 64 octets and a text of at most %d, got %d and %d", MaxText, len(r.Code), len(r.Text))
	}
	if r.ID != nil {
		return r.ID.check()
	}
	return nil
}

func (m SchemaMessage) check() error { return m.Schema.Check() }

func (m BatchMessage) check() error {
	if len(m.Data) <= sumSize || len(m.Data) > MaxBatch {
		return malformed("batch message: expected %d to %d octets, got %d", sumSize+1, MaxBatch, len(m.Data))
	}
	return nil
}

func (a Ack) check() error       { return checkIDs(a.IDs) }
func (a AckEvents) check() error { return checkIDs(a.IDs) }

func checkIDs(ids []BatchID) error {
	if len(ids) < 1 || len(ids) > MaxAcks {
		return malformed("ack: expected 1 to %d names, got %d", MaxAcks, len(ids))
	}
	for _, id := range ids {
		if err := id.check(); err != nil {
			return err
		}
	}
	return nil
}

func (m StatusMessage) check() error {
	if n := len(m.Status.Interfaces); n > 256 {
		return malformed("status: expected at most 256 interfaces, got %d", n)
	}
	return nil
}

func (m EventMessage) check() error {
	e := m.Event
	if err := ID(e.Boot, e.Seq).check(); err != nil {
		return err
	}
	if len(e.Kind) < 1 || len(e.Kind) > MaxName || len(e.Message) > 4*MaxText || len(e.Fields) > 64 {
		return malformed("event: expected a kind of 1 to %d octets, a message of at most %d and 64 fields, got %d, %d and %d",
			MaxName, 4*MaxText, len(e.Kind), len(e.Message), len(e.Fields))
	}
	return nil
}

func (u Unknown) check() error { return nil }
