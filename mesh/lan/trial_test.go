package lan

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/ntp"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Leases are short in the first hour of each port that a gateway has found out about.
func TestShortLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := identity.New().Public()
		l := New(Config{Role: model.RoleGateway, Network: key, Node: key, Clock: func() ntp.Reading { return ntp.Reading{} }, Log: slog.New(slog.DiscardHandler)})
		w := Wanted{Clients: paths.ClientsGateway}
		for _, step := range []struct {
			name         string
			ports, trial []string
			after        time.Duration
			want         time.Duration
		}{
			{"none", nil, nil, 0, clientLease},
			{"one that is pinned", []string{"eth0"}, nil, 0, clientLease},
			{"another", []string{"eth0", "eth1"}, []string{"eth1"}, 0, trialLease},
			{"near the end", []string{"eth0", "eth1"}, []string{"eth1"}, trialFor - time.Second, trialLease},
			{"after an hour", []string{"eth0", "eth1"}, []string{"eth1"}, time.Second, clientLease},
			{"one of two is new", []string{"eth1", "eth2"}, []string{"eth1", "eth2"}, 0, trialLease},
			{"and gone", []string{"eth1"}, []string{"eth1"}, trialFor / 2, trialLease},
			{"an hour after it came", []string{"eth1"}, []string{"eth1"}, trialFor / 2, clientLease},
			{"another cable", nil, nil, 0, clientLease},
			{"in the same port", []string{"eth1"}, []string{"eth1"}, 0, trialLease},
		} {
			w.Ports, w.Trial = step.ports, step.trial
			l.Set(w)
			time.Sleep(step.after)
			l.mu.Lock()
			got := l.lengthOfLease(time.Now())
			l.mu.Unlock()
			if got != step.want {
				t.Errorf("%s: leases of %s, want %s", step.name, got, step.want)
			}
		}
	})
}
