package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
)

// How often a device is asked for what /v1/live has no topic for: pollEvery unless somebody
// says otherwise, and never more often than pollLeast, since the mesh may be slow.
const (
	pollEvery = 5 * time.Second
	pollLeast = time.Second
)

// watchFlags are those of commands that ask again and again.
type watchFlags struct {
	on       bool
	interval time.Duration
}

func (w *watchFlags) add(c *cobra.Command, what string) {
	c.Flags().BoolVar(&w.on, "watch", false, what)
	c.Flags().DurationVar(&w.interval, "interval", pollEvery, "how often --watch asks, "+pollLeast.String()+" at least")
}

// again asks at once and then at each interval, until it is interrupted. That nobody answers
// is said once and waited out, if somebody has answered before.
func (a *app) again(ctx context.Context, interval time.Duration, ask func() error) error {
	ever, silent := false, false
	return every(ctx, max(interval, pollLeast), func() error {
		err := ask()
		if ever && ctx.Err() == nil && away(err) {
			if !silent {
				fmt.Fprintln(a.env.Stderr, "haloctl:", table.Clean(err.Error())+"; trying again.")
			}
			silent = true
			return nil
		}
		ever, silent = true, false
		return err
	})
}

// polled is a list that is asked for again and again.
type polled[T any] struct {
	changing[T]
	ask  func(context.Context) (list []T, whole bool, err error) // whole: there is nothing besides
	id   func(T) string
	same func(T) T // without what changes all the time and is not worth a line
}

// watch prints all things of the list, and then, until it is interrupted, those that are
// others than before.
func (p *polled[T]) watch(ctx context.Context, interval time.Duration) error {
	before := map[string][]byte{}
	return p.app.again(ctx, interval, func() error {
		list, whole, err := p.ask(ctx)
		if err != nil {
			return err
		}
		now := make(map[string][]byte, len(list))
		var news []T
		for _, v := range list {
			text, err := json.Marshal(p.same(v))
			if err != nil {
				return err
			}
			id := p.id(v)
			if now[id] = text; !bytes.Equal(before[id], text) {
				news = append(news, v)
			}
		}
		var gone []string
		for id := range before {
			if whole && now[id] == nil {
				gone = append(gone, id)
			}
		}
		slices.Sort(gone)
		first := !p.begun
		before = now
		if len(news)+len(gone) == 0 && !first {
			return nil
		}
		return p.print(news, gone)
	})
}
