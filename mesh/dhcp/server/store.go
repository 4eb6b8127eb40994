package server

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// The file has a line for each lease, the longest unheard first: a CRC-32C in
// hexadecimal, a space, and a record in JSON. A line that is damaged is lost, and
// no other with it.
const (
	maxLine = 1 << 10
	maxFile = maxLeases * maxLine
	crcSize = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is a lease in the file. It says how long the lease is, not when it
// ends: nobody knows how long the power was off.
type record struct {
	Address  netip.Addr `json:"address"`
	MAC      string     `json:"mac"`
	ClientID string     `json:"client_id,omitempty"` // in hexadecimal
	Hostname string     `json:"hostname,omitempty"`
	Name     string     `json:"name,omitempty"`
	Seconds  int64      `json:"seconds"`
	Ended    bool       `json:"ended,omitempty"`
}

// encode writes leases in that order.
func encode(list []record) []byte {
	var b bytes.Buffer
	for _, r := range list {
		line, err := json.Marshal(r)
		if err != nil {
			panic(err) // of strings and numbers
		}
		fmt.Fprintf(&b, "%08x %s\n", crc32.Checksum(line, castagnoli), line)
	}
	return b.Bytes()
}

// decode returns the records that are whole and make sense by themselves, and
// how many lines are not. Of two that speak of one address, neither is believed.
func decode(b []byte) (list []record, bad int) {
	seen := map[netip.Addr]int{}
	for line := range bytes.Lines(b) {
		r, err := decodeLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil || len(list) == maxLeases {
			bad++
			continue
		}
		seen[r.Address]++
		list = append(list, r)
	}
	return slices.DeleteFunc(list, func(r record) bool {
		if seen[r.Address] > 1 {
			bad++
		}
		return seen[r.Address] > 1
	}), bad
}

func decodeLine(line []byte) (record, error) {
	if len(line) < crcSize+1 || len(line) > maxLine || line[crcSize] != ' ' {
		return record{}, errors.New("expected a checksum and a record")
	}
	sum, err := strconv.ParseUint(string(line[:crcSize]), 16, 32)
	text := line[crcSize+1:]
	if err != nil || uint32(sum) != crc32.Checksum(text, castagnoli) {
		return record{}, errors.New("expected another checksum")
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, err
	}
	if _, err := r.client(); err != nil {
		return record{}, err
	}
	if !r.Address.Is4() || r.Seconds <= 0 || r.Seconds > int64(LongestLease/time.Second) || r.Hostname != hostname(r.Hostname) || r.Name != hostname(r.Name) {
		return record{}, fmt.Errorf("expected a lease, got %+v", r)
	}
	return r, nil
}

func (r record) client() (client, error) {
	hw, err := net.ParseMAC(r.MAC)
	if err != nil || len(hw) != 6 {
		return client{}, fmt.Errorf("expected a MAC, got %q", r.MAC)
	}
	id, err := hex.DecodeString(r.ClientID)
	if err != nil || len(id) > maxClientID {
		return client{}, fmt.Errorf("expected an identifier of %d octets at most, got %q", maxClientID, r.ClientID)
	}
	return client{mac(hw), string(id)}, nil
}

// snapshot is what the file is to hold.
func (s *Server) snapshot() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	leases := make([]*lease, 0, len(s.e.byAddr))
	for _, l := range s.e.byAddr {
		leases = append(leases, l)
	}
	slices.SortFunc(leases, byAge)
	list := make([]record, len(leases))
	for i, l := range leases {
		list[i] = record{l.addr, l.mac.String(), hex.EncodeToString([]byte(l.client.id)), l.host, l.name, int64(l.granted / time.Second), l.ended}
	}
	return encode(list)
}

// load takes up what the file has, as far as the configuration still allows it.
func (s *Server) load(now time.Time) {
	if s.c.File == "" {
		return
	}
	b, err := readBounded(s.c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	list, bad := decode(b)
	s.e.restore(now, list)
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d of %d lines are damaged", bad, bad+len(list))
	}
	if err != nil {
		s.e.event(EventStore, model.Warning, fmt.Sprintf("leases on %s: %v; clients whose lease is lost ask for it again", s.c.Iface, err), nil)
	}
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: expected %d octets at most", path, maxFile)
	}
	return b, err
}

func (e *engine) restore(now time.Time, list []record) {
	for i, r := range list {
		c, _ := r.client() // decode has looked
		hw := c.mac
		c.mac = e.same(hw)
		if e.byClient[c] != nil || !e.allowed(c, r.Address) {
			e.out.dirty = true
			continue
		}
		granted := min(time.Duration(r.Seconds)*time.Second, LongestLease)
		older := time.Duration(len(list)-i) * time.Microsecond // keeps the order
		l := &lease{addr: r.Address, client: c, mac: hw, host: r.Hostname, name: r.Name, granted: granted, until: now.Add(granted - older), loaded: now, ended: r.Ended}
		e.byAddr[l.addr], e.byClient[c] = l, l
		if l.ended {
			l.until, l.name = now.Add(-older), ""
		} else {
			l.name = e.name(c, r.Hostname) // as it was, unless others may have that now
			e.expiry = sooner(e.expiry, l.until)
		}
	}
}

// keeper writes the file: some time after a change, for the changes of that
// time, the less often the longer they go on, and beside the server's work,
// since a card takes seconds at times.
type keeper struct {
	c       Config
	written chan error
	busy    bool
	changed time.Time // first change that is not in the file; zero: none
	last    time.Time // end of the last write
	gap     time.Duration
	failed  bool
}

func newKeeper(c Config) *keeper {
	return &keeper{c: c, written: make(chan error, 1), gap: c.timing.saveGap}
}

func (k *keeper) note(now time.Time) {
	if k.c.File == "" || !k.changed.IsZero() {
		return
	}
	k.changed = now
	if !k.last.IsZero() && now.Sub(k.last) > 2*k.gap {
		k.gap = k.c.timing.saveGap
	}
}

// due is when to start a write; the zero time: not now.
func (k *keeper) due() time.Time {
	if k.busy || k.changed.IsZero() {
		return time.Time{}
	}
	t := k.changed.Add(k.c.timing.saveFirst)
	if after := k.last.Add(k.gap); !k.last.IsZero() && t.Before(after) {
		t = after
	}
	return t
}

func (k *keeper) start(b []byte) {
	k.busy, k.changed = true, time.Time{}
	go func() { k.written <- atomicfile.Write(k.c.File, b, 0o600) }()
}

func (k *keeper) wrote(now time.Time, err error) {
	k.busy = false
	if !k.last.IsZero() || err != nil {
		k.gap = min(2*k.gap, k.c.timing.saveLongst)
	}
	k.last = now
	if err != nil {
		k.note(now)
	}
	if failed := err != nil; failed != k.failed {
		k.failed = failed
		if failed && k.c.Notify != nil {
			k.c.Notify(model.Event{Kind: EventStore, Severity: model.Warning,
				Message: fmt.Sprintf("leases on %s are not kept: %v; is /perm full or read-only?", k.c.Iface, err), Fields: map[string]string{"iface": k.c.Iface}})
		}
	}
}

// close writes what is not in the file, also what would have waited.
func (k *keeper) close(s *Server) {
	if k.c.File == "" {
		return
	}
	if k.busy {
		k.wrote(time.Now(), <-k.written)
	}
	b := s.snapshot()
	if old, err := readBounded(k.c.File); err == nil && bytes.Equal(old, b) || errors.Is(err, fs.ErrNotExist) && len(b) == 0 {
		return
	}
	k.wrote(time.Now(), atomicfile.Write(k.c.File, b, 0o600))
}
