package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
)

// UnreachableError says that no gateway answered.
type UnreachableError struct {
	Gateway string
	Err     error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from the gateway at %s: %v", e.Gateway, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// UntrustedError says that what answered could not prove to be the gateway.
type UntrustedError struct {
	Gateway string
	Err     error
}

// Error implements error.
func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s is not the gateway of this network: %v", e.Gateway, e.Err)
}

// Unwrap returns the cause.
func (e *UntrustedError) Unwrap() error { return e.Err }

// explain sorts a transport's error. The URL that net/http puts before it is
// dropped: the gateway is named once.
func explain(base *url.URL, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if u, ok := errors.AsType[*UntrustedError](err); ok {
		return &UntrustedError{Gateway: base.Host, Err: u.Err} // a handshake knows no address
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &UntrustedError{Gateway: base.Host, Err: err}
	}
	return &UnreachableError{Gateway: base.String(), Err: err}
}
