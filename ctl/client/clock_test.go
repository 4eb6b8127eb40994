package client

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"
)

// A gateway without a clock issued its certificate at its build, and a laptop
// asks in 2040; or the laptop's battery is dead and it believes in 2000.
func TestClocksOfBothEndsPlayNoPart(t *testing.T) {
	build := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	synctest.Test(t, func(t *testing.T) { // it begins in 2000
		ca, other := newAuthorityAt(t, build), newAuthorityAt(t, build)
		for _, year := range []int{2000, 2040, 2090} {
			time.Sleep(time.Until(time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC)))
			for _, clock := range []time.Time{build, build.AddDate(13, 0, 0), build.AddDate(30, 0, 0)} {
				cert := ca.issueAt(t, x509.ExtKeyUsageServerAuth, clock)
				chain := []*x509.Certificate{cert.Leaf, ca.cert}
				if err := issued(ca.cert, chain); err != nil {
					t.Errorf("the gateway's clock at %s, this one at %d: %v", clock, year, err)
				}
				if err := issued(other.cert, chain); err == nil {
					t.Errorf("the gateway's clock at %s, this one at %d: another CA was taken", clock, year)
				}
			}
			for _, clock := range []time.Time{time.Unix(0, 0), build.AddDate(60, 0, 0)} {
				if err := issued(ca.cert, []*x509.Certificate{ca.issueAt(t, x509.ExtKeyUsageServerAuth, clock).Leaf}); err == nil {
					t.Errorf("issued at %s, when the CA was not valid: taken", clock)
				}
			}
		}
	})
}
