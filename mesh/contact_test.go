package mesh

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestContacts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		links []time.Duration
		want  []time.Duration
	}{
		{"none", nil, nil},
		{"one", []time.Duration{10 * time.Second}, []time.Duration{11 * time.Second, 12 * time.Second, 15 * time.Second}},
		{"another soon after", []time.Duration{0, 500 * time.Millisecond}, []time.Duration{time.Second, 2500 * time.Millisecond, 5500 * time.Millisecond}},
		{"another in the middle", []time.Duration{0, 3 * time.Second}, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 8 * time.Second}},
		{"one after another", []time.Duration{0, 400 * time.Millisecond, 800 * time.Millisecond, 1200 * time.Millisecond}, []time.Duration{time.Second, 2200 * time.Millisecond, 3200 * time.Millisecond, 6200 * time.Millisecond}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				links, ended := make(chan struct{}, 1), make(chan error)
				start := time.Now()
				var got []time.Duration
				go func() {
					ended <- followContacts(ctx, links, []time.Duration{time.Second, 2 * time.Second, 5 * time.Second}, func() { got = append(got, time.Since(start)) })
				}()
				for _, at := range tc.links {
					time.Sleep(time.Until(start.Add(at)))
					wake(links)
				}
				time.Sleep(time.Minute)
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if len(got) != len(tc.want) {
					t.Fatalf("at %v, want %v", got, tc.want)
				}
				for i := range got {
					if got[i] != tc.want[i] {
						t.Errorf("at %v, want %v", got, tc.want)
						break
					}
				}
			})
		})
	}
}
