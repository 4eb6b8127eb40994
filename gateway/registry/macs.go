package registry

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/http"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const (
	maxTrustedMACs = 1000
	maxMACs        = 32 // of one node
)

// ParseMAC returns the one form in which a MAC is kept.
func ParseMAC(s string) (string, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 || hw.String() == "00:00:00:00:00:00" {
		return "", apitype.Refuse(http.StatusUnprocessableEntity, "", "mac: expected the MAC of a device, six octets in hex such as 02:00:00:00:00:01, got %.40q", s)
	}
	return hw.String(), nil
}

// macsOf are those that a node says it has.
func macsOf(req model.JoinRequest) []string {
	macs := []string{}
	for _, m := range req.MACs {
		if mac, err := ParseMAC(m); err == nil && len(macs) < maxMACs {
			macs = append(macs, mac)
		}
	}
	return macs
}

// trusted returns which of a node's MACs is on the list and admits it, or "".
// A MAC can be heard and imitated by anybody: each admits one device, and none
// once a device has come with it, however that one was admitted.
func trusted(ctx context.Context, tx *sql.Tx, id string, macs []string) (string, error) {
	for _, mac := range macs {
		var node string
		err := tx.QueryRowContext(ctx, `SELECT node FROM trusted_macs WHERE mac = ?`, mac).Scan(&node)
		if err == nil && (node == "" || node == id) {
			return mac, nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return "", err
		}
	}
	return "", nil
}

// bind notes that a node has come with these MACs.
func (r *Registry) bind(ctx context.Context, tx *sql.Tx, id string, macs []string) error {
	for _, mac := range macs {
		if _, err := tx.ExecContext(ctx, `UPDATE trusted_macs SET node = ?, used = ? WHERE mac = ? AND node = ''`, id, store.Millis(r.clock.Now()), mac); err != nil {
			return err
		}
	}
	return nil
}

// bindLate binds the entries that a member's MACs have got since it joined. It
// writes only where there are some.
func (r *Registry) bindLate(ctx context.Context, id string, macs []string) error {
	for _, mac := range macs {
		var free bool
		if err := r.db.Read().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM trusted_macs WHERE mac = ? AND node = '')`, mac).Scan(&free); err != nil {
			return store.Classify(err)
		}
		if free {
			return r.db.Write(ctx, func(tx *sql.Tx) error { return r.bind(ctx, tx, id, macs) })
		}
	}
	return nil
}

// bindMember binds an entry to the member that has the MAC already: it must not
// admit another device.
func (r *Registry) bindMember(ctx context.Context, tx *sql.Tx, mac string) error {
	var id string
	err := tx.QueryRowContext(ctx, `SELECT nodes.id FROM nodes, json_each(nodes.macs) AS has WHERE has.value = ? AND NOT nodes.revoked ORDER BY nodes.joined LIMIT 1`, mac).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.bind(ctx, tx, id, []string{mac})
}

const macColumns = `mac, note, created, created_by, node, used`

func scanMAC(row interface{ Scan(...any) error }) (apitype.TrustedMAC, error) {
	var m apitype.TrustedMAC
	var created int64
	var used sql.NullInt64
	err := row.Scan(&m.MAC, &m.Note, &created, &m.By, &m.Node, &used)
	m.Created, m.Used = store.Time(created), store.TimePtr(used)
	return m, err
}

// TrustedMACs returns a page of the list.
func (r *Registry) TrustedMACs(ctx context.Context, cursor string, limit int) (apitype.TrustedMACList, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT `+macColumns+` FROM trusted_macs WHERE mac > ? ORDER BY mac LIMIT ?`, cursor, limit+1)
	if err != nil {
		return apitype.TrustedMACList{}, store.Classify(err)
	}
	defer rows.Close()
	list := apitype.TrustedMACList{Items: []apitype.TrustedMAC{}}
	for rows.Next() {
		m, err := scanMAC(rows)
		if err != nil {
			return apitype.TrustedMACList{}, store.Classify(err)
		}
		list.Items = append(list.Items, m)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = list.Items[limit-1].MAC
	}
	return list, store.Classify(rows.Err())
}

// TrustMAC puts a MAC on the list. One that is there stays as it is, so that a
// client may try again.
func (r *Registry) TrustMAC(ctx context.Context, by string, c apitype.TrustMAC) (apitype.TrustedMAC, error) {
	mac, err := ParseMAC(c.MAC)
	if err != nil {
		return apitype.TrustedMAC{}, err
	}
	var m apitype.TrustedMAC
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM trusted_macs WHERE mac <> ?`, mac).Scan(&n); err != nil {
			return err
		}
		if n >= maxTrustedMACs {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d trusted MACs already; remove some", n)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO trusted_macs (mac, note, created, created_by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			mac, c.Note, store.Millis(r.clock.Now()), by); err != nil {
			return err
		}
		if err := r.bindMember(ctx, tx, mac); err != nil {
			return err
		}
		var err error
		m, err = scanMAC(tx.QueryRowContext(ctx, `SELECT `+macColumns+` FROM trusted_macs WHERE mac = ?`, mac))
		return err
	})
	return m, err
}

// MACTag returns the entity tag of an entry of the list: of what people change of it,
// not of who came with it.
func MACTag(m apitype.TrustedMAC) string {
	return etag.Of(struct {
		MAC, Note, By string
		Created       time.Time
	}{m.MAC, m.Note, m.By, m.Created})
}

// readMAC reads an entry from a transaction or the connections for queries.
func readMAC(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, mac string) (apitype.TrustedMAC, error) {
	m, err := scanMAC(q.QueryRowContext(ctx, `SELECT `+macColumns+` FROM trusted_macs WHERE mac = ?`, mac))
	if errors.Is(err, sql.ErrNoRows) {
		return m, apitype.Refuse(http.StatusNotFound, "", "the MAC %s is not on the list", mac)
	}
	return m, store.Classify(err)
}

// TrustedMAC returns one entry of the list.
func (r *Registry) TrustedMAC(ctx context.Context, mac string) (apitype.TrustedMAC, error) {
	mac, err := ParseMAC(mac)
	if err != nil {
		return apitype.TrustedMAC{}, err
	}
	return readMAC(ctx, r.db.Read(), mac)
}

// changeMAC runs f on an entry that meets the condition.
func (r *Registry) changeMAC(ctx context.Context, mac string, c etag.Match, f func(*sql.Tx, *apitype.TrustedMAC) error) (m apitype.TrustedMAC, err error) {
	if mac, err = ParseMAC(mac); err != nil {
		return m, err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if m, err = readMAC(ctx, tx, mac); err != nil {
			return err
		}
		if err := c.Check(MACTag(m)); err != nil {
			return err
		}
		return f(tx, &m)
	})
	return m, err
}

// UpdateTrustedMAC changes what is noted of an entry that meets the condition.
func (r *Registry) UpdateTrustedMAC(ctx context.Context, mac string, c etag.Match, u apitype.UpdateTrustedMAC) (apitype.TrustedMAC, error) {
	return r.changeMAC(ctx, mac, c, func(tx *sql.Tx, m *apitype.TrustedMAC) error {
		if u.Note == nil {
			return nil
		}
		m.Note = *u.Note
		_, err := tx.ExecContext(ctx, `UPDATE trusted_macs SET note = ? WHERE mac = ?`, m.Note, m.MAC)
		return err
	})
}

// DistrustMAC takes a MAC that meets the condition off the list. A node that came with
// it stays.
func (r *Registry) DistrustMAC(ctx context.Context, mac string, c etag.Match) error {
	_, err := r.changeMAC(ctx, mac, c, func(tx *sql.Tx, m *apitype.TrustedMAC) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM trusted_macs WHERE mac = ?`, m.MAC)
		return err
	})
	return err
}
