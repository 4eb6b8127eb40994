package auth

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Bounds of operators' certificates.
const (
	maxOfOperator   = 64             // of one user, that hold or are revoked before their time
	maxPerHour      = 20             // of one user
	operatorsKept   = 24 * time.Hour // after their end, for people
	operatorsRecalc = 10 * time.Minute
)

// withdrawn remembers which certificates are over: halo-mesh is told every other
// second, and the database need not be asked for that.
type withdrawn struct {
	mu    sync.Mutex // guards what follows
	known bool
	at    time.Time
	epoch uint64
	model.Operators
}

func (w *withdrawn) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = false
}

// IssueOperator signs a certificate for the doors of all nodes, for the person
// who asks.
func (s *Service) IssueOperator(ctx context.Context, by Principal, c apitype.CreateOperatorCertificate) (apitype.OperatorCertificate, error) {
	none := apitype.OperatorCertificate{}
	if by.Kind != "user" {
		return none, apitype.Refuse(http.StatusForbidden, apitype.ProblemScope, "certificates are for people: log in with a name and a password")
	}
	key, err := identity.ParsePublicKey(c.Key)
	if err != nil {
		return none, apitype.Refuse(http.StatusUnprocessableEntity, "", "key: %v", err)
	}
	life := operator.Validity
	if c.Days > 0 {
		life = min(time.Duration(c.Days)*24*time.Hour, operator.MaxValidity)
	}
	now := store.Time(store.Millis(s.clock.Now()))
	cert := operator.Certificate{Epoch: s.epoch(), User: by.Name, Key: key, Issued: now, Expires: now.Add(life)}
	var signed []byte
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		u, err := loggedIn(ctx, tx, by)
		if err != nil {
			return err
		}
		cert.Role = u.role // as it is now, not as it was when the token was made
		if err := roomForOperator(ctx, tx, by.Name, now, s.clock.Aged()); err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `INSERT INTO operator_certificates (epoch, username, role, key, label, issued, expires) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING serial`,
			int64(cert.Epoch), cert.User, cert.Role, key[:], c.Label, store.Millis(cert.Issued), store.Millis(cert.Expires)).Scan(&cert.Serial)
		if err != nil {
			return err
		}
		signed, err = operator.Sign(s.network, cert)
		return err
	})
	if err != nil {
		return none, err
	}
	s.withdrawn.changed()
	s.events.Add("operator.certified", model.Info, "", by.Name+" may come in at the doors of all nodes", map[string]string{
		"user": by.Name, "role": cert.Role, "serial": strconv.FormatUint(cert.Serial, 10), "label": c.Label, "until": cert.Expires.Format(time.RFC3339)})
	return apitype.OperatorCertificate{
		Serial: cert.Serial, Username: cert.User, Role: cert.Role, Key: key.Base64(), Label: c.Label, Epoch: cert.Epoch,
		Issued: cert.Issued, Expires: cert.Expires, Certificate: operator.Encode(signed),
	}, nil
}

// roomForOperator bounds how many certificates there are, and forgets those that
// ended some time ago.
func roomForOperator(ctx context.Context, tx *sql.Tx, user string, now, aged time.Time) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM operator_certificates WHERE expires < ?`, store.Millis(aged.Add(-operatorsKept))); err != nil {
		return err
	}
	var all, fresh int
	if err := tx.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE issued > ? AND issued <= ?) FROM operator_certificates WHERE username = ?`,
		store.Millis(now.Add(-time.Hour)), store.Millis(now), user).Scan(&all, &fresh); err != nil {
		return err
	}
	switch {
	case fresh >= maxPerHour:
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s has got %d certificates within an hour; try again later", user, fresh).After(10 * time.Minute)
	case all >= maxOfOperator:
		return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "%s has %d certificates that have not ended yet, which is the most", user, all)
	}
	return nil
}

// Operators returns a page of certificates by serial number; who is no admin
// sees the own.
func (s *Service) OperatorCertificates(ctx context.Context, by Principal, cursor string, limit int) (apitype.OperatorCertificateList, error) {
	list := apitype.OperatorCertificateList{Items: []apitype.OperatorCertificate{}}
	after := int64(0)
	if cursor != "" {
		var err error
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return list, apitype.Refuse(http.StatusBadRequest, "", "cursor: expected the value of \"next\" of an earlier page")
		}
	}
	rows, err := s.db.Read().QueryContext(ctx, `SELECT serial, epoch, username, role, key, label, issued, expires, revoked FROM operator_certificates
		WHERE serial > ? AND (? OR username = ?) ORDER BY serial LIMIT ?`, after, by.Has(apitype.ScopeAdmin), by.own(), limit+1)
	if err != nil {
		return list, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c apitype.OperatorCertificate
		var key []byte
		var issued, expires int64
		var revoked sql.NullInt64
		if err := rows.Scan(&c.Serial, &c.Epoch, &c.Username, &c.Role, &key, &c.Label, &issued, &expires, &revoked); err != nil {
			return list, store.Classify(err)
		}
		if len(key) == len(identity.PublicKey{}) {
			c.Key = identity.PublicKey(key).Base64()
		}
		c.Issued, c.Expires, c.Revoked = store.Time(issued), store.Time(expires), store.TimePtr(revoked)
		list.Items = append(list.Items, c)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = strconv.FormatUint(list.Items[limit-1].Serial, 10)
	}
	return list, store.Classify(rows.Err())
}

// own is the name under which a principal has certificates; a machine has none.
func (p Principal) own() string {
	if p.Kind != "user" {
		return ""
	}
	return p.Name
}

// RevokeOperator ends a certificate before its time, such as that of a lost
// laptop. Everybody may end the own.
func (s *Service) RevokeOperator(ctx context.Context, by Principal, serial uint64) error {
	now := s.clock.Now()
	var user string
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `UPDATE operator_certificates SET revoked = coalesce(revoked, ?) WHERE serial = ? AND (? OR username = ?) RETURNING username`,
			store.Millis(now), int64(serial), by.Has(apitype.ScopeAdmin), by.own()).Scan(&user)
		if errors.Is(err, sql.ErrNoRows) {
			return apitype.Refuse(http.StatusNotFound, "", "there is no certificate number %d of yours", serial)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.withdrawn.changed()
	s.events.Add("operator.revoked", model.Warning, "", "a certificate of "+user+" was revoked", map[string]string{"user": user, "serial": strconv.FormatUint(serial, 10), "by": by.Actor()})
	return nil
}

// revokeOperators ends all certificates of a user within a transaction.
func (s *Service) revokeOperators(ctx context.Context, tx *sql.Tx, user string) error {
	_, err := tx.ExecContext(ctx, `UPDATE operator_certificates SET revoked = ? WHERE username = ? AND revoked IS NULL`, store.Millis(s.clock.Now()), user)
	return err
}

// Operators returns which certificates of the present epoch are over, as the
// list of members is to say it. When more are revoked than fit, the floor rises
// over the oldest of them, and some that hold end with them: their owners get
// others.
func (s *Service) Operators(ctx context.Context) (model.Operators, error) {
	w := &s.withdrawn
	w.mu.Lock()
	defer w.mu.Unlock()
	epoch := s.epoch()
	if w.known && w.epoch == epoch && time.Since(w.at) < operatorsRecalc {
		return w.Operators, nil
	}
	o, err := s.readOperators(ctx, epoch)
	if err != nil {
		return o, err
	}
	w.known, w.at, w.epoch, w.Operators = true, time.Now(), epoch, o
	return o, nil
}

func (s *Service) readOperators(ctx context.Context, epoch uint64) (o model.Operators, err error) {
	now := store.Millis(s.clock.Now())
	err = s.db.Read().QueryRowContext(ctx, `SELECT coalesce(
			(SELECT min(serial) FROM operator_certificates WHERE epoch = ? AND revoked IS NULL AND expires > ?),
			(SELECT seq + 1 FROM sqlite_sequence WHERE name = 'operator_certificates'), 0)`, int64(epoch), now).Scan(&o.Floor)
	if err != nil {
		return o, store.Classify(err)
	}
	rows, err := s.db.Read().QueryContext(ctx, `SELECT serial FROM operator_certificates WHERE epoch = ? AND revoked IS NOT NULL AND expires > ? AND serial >= ? ORDER BY serial`, int64(epoch), now, int64(o.Floor))
	if err != nil {
		return o, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n uint64
		if err := rows.Scan(&n); err != nil {
			return o, store.Classify(err)
		}
		o.Revoked = append(o.Revoked, n)
	}
	if over := len(o.Revoked) - model.MaxRevoked; over > 0 {
		o.Floor, o.Revoked = o.Revoked[over], o.Revoked[over:]
	}
	return o, store.Classify(rows.Err())
}
