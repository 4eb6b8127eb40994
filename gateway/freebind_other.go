//go:build !linux

package gateway

import "syscall"

// freebind is Linux's; elsewhere the gateway runs alone and needs none.
func freebind(_, _ string, _ syscall.RawConn) error { return nil }
