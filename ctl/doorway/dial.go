package doorway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"halo.internal/identity/operator"
	"halo.internal/model/paths"
)

const (
	dialWait      = 8 * time.Second  // for one address
	handshakeWait = 20 * time.Second // two round trips, on the slowest link
	maxHeader     = 64 << 10
)

// Target is the node that is meant and where its door may be.
type Target struct {
	ID        string // canonical; empty: whoever accept takes
	Name      string // for people
	Addresses []string
	// Accept judges who is met where ID is empty.
	Accept func(id string) error
}

// Who is the target in words.
func (t Target) Who() string {
	for _, s := range []string{t.Name, t.ID} {
		if s != "" {
			return s
		}
	}
	return strings.Join(t.Addresses, ", ")
}

// UnreachableError is a node whose door was not found at any address.
type UnreachableError struct {
	Target Target
	Err    error
}

// Error names the addresses.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from the door of %s: %v", e.Target.Who(), e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// StrangerError is somebody else at the address of a node.
type StrangerError struct {
	Met string // canonical ID, which it has proved
	Err error
}

// Error says who was met.
func (e *StrangerError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StrangerError) Unwrap() error { return e.Err }

// Transport returns the way to a node's door, for requests to any host: all of
// them go to that node.
func Transport(t Target, c Credential) (http.RoundTripper, error) {
	if c.Certificate == "" {
		return nil, ErrNoCredential
	}
	cert, err := operator.TLSCertificate(c.Seed, c.Username)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, // replaced by VerifyConnection, which runs on each handshake
		VerifyConnection:   t.verify,
	}
	return &bearing{certificate: c.Certificate, to: &http.Transport{
		Proxy:                  nil,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           1,
		IdleConnTimeout:        30 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return t.dial(ctx, conf)
		},
	}}, nil
}

// verify tells whether the other end is the node that is meant.
func (t Target) verify(s tls.ConnectionState) error {
	key, err := operator.PeerKey(s)
	if err != nil {
		return &StrangerError{Err: fmt.Errorf("it is no door of a HALO node: %w", err)}
	}
	switch id := key.ID(); {
	case t.ID != "" && id != t.ID:
		return &StrangerError{Met: id, Err: fmt.Errorf("expected %s, and it is %s", t.ID, id)}
	case t.ID == "":
		if err := t.Accept(id); err != nil {
			return &StrangerError{Met: id, Err: err}
		}
	}
	return nil
}

// dial tries one address after the other.
func (t Target) dial(ctx context.Context, conf *tls.Config) (net.Conn, error) {
	var errs []error
	for _, a := range t.Addresses {
		c, err := dialOne(ctx, a, conf)
		if err == nil {
			return c, nil
		}
		if _, stranger := errors.AsType[*StrangerError](err); stranger {
			return nil, fmt.Errorf("at %s: %w", a, err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("no address of it is known"))
	}
	return nil, &UnreachableError{t, errors.Join(errs...)}
}

func dialOne(ctx context.Context, address string, conf *tls.Config) (net.Conn, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, fmt.Sprint(paths.DoorPort))
	}
	raw, err := (&net.Dialer{Timeout: dialWait}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	shake, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(shake); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return c, nil
}

// bearing adds the operator's certificate to each request.
type bearing struct {
	certificate string
	to          *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (b *bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(operator.Header, b.certificate)
	return b.to.RoundTrip(r)
}

// CloseIdleConnections is for http.Client.
func (b *bearing) CloseIdleConnections() { b.to.CloseIdleConnections() }

// Parse reads the argument of --node: a name, a canonical ID or an address, or
// one of the first two with an address behind @.
func Parse(s string) (who, address string, err error) {
	who, address, _ = strings.Cut(s, "@")
	switch {
	case who == "" || strings.Contains(address, "@"):
		return "", "", fmt.Errorf("--node: expected a name, an ID or an address, or NODE@ADDRESS, got %.80q", s)
	case strings.HasSuffix(s, "@"):
		return "", "", fmt.Errorf("--node: expected an address behind @, got %.80q", s)
	}
	for _, part := range []string{who, address} {
		if strings.ContainsAny(part, " \t\r\n/?#\\") || len(part) > 255 {
			return "", "", fmt.Errorf("--node: expected a name, an ID or an address, got %.80q", part)
		}
	}
	return who, address, nil
}

// IsAddress tells whether who is an address rather than a name or an ID.
func IsAddress(who string) bool {
	if _, err := netip.ParseAddr(who); err == nil {
		return true
	}
	_, err := netip.ParseAddrPort(who)
	return err == nil
}
