package scenarios

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"halo.internal/lab/admin"
	"halo.internal/model/apitype"
)

// restoredGateway loses the gateway's card, and has a fresh one, without a bundle, become
// the gateway by a backup. Nodes take it for theirs with nobody touching them. The gateway
// is cut off before the backup is made: what nodes are acknowledged after a backup is lost
// with the card. Then the lost card is found, and put in: no node is to take it for its
// gateway, and all are to be with the fresh one as soon as that is back.
func restoredGateway(ctx context.Context, w *World, r *Result) error {
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	g := w.gateway()
	if err := w.Net.Partition([]string{g.Name()}); err != nil {
		return err
	}
	defer w.Net.Heal()
	if err := w.pass(ctx, onItsWay); err != nil {
		return err
	}
	passphrase := rand.Text()
	file, err := w.Admin.Backup(ctx, apitype.CreateBackup{Passphrase: passphrase, Telemetry: true})
	if err != nil {
		return err
	}
	r.note("the backup has %d octets", len(file))
	if err := g.PowerCut(); err != nil {
		return err
	}
	old, err := w.Net.FreshCard(ctx, g)
	if old != nil {
		defer func() { _ = old.Close() }() // whichever is out at the end
	}
	if err != nil {
		return err
	}
	if err := w.Net.PowerOn(g); err != nil {
		return err
	}
	var fresh *admin.Admin
	if err := w.eventually(ctx, "the fresh gateway takes the claim code that it shows", func() (err error) {
		code, err := claimCode(g.Console())
		if err == nil {
			fresh, err = admin.Claim(ctx, g.URL(), code)
		}
		return err
	}); err != nil {
		return err
	}
	defer fresh.Close()
	if err := fresh.Restore(ctx, passphrase, file); err != nil {
		return err
	}
	w.Net.Heal()
	o.Over()
	o.Restarted, r.Since = append(o.Restarted, g), "the backup was taken"
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	exchange := func() error {
		if err := g.PowerCut(); err != nil {
			return err
		}
		if old, err = w.Net.ReturnCard(g, old); err != nil {
			return err
		}
		return w.Net.PowerOn(g)
	}
	if err := exchange(); err != nil {
		return err
	}
	if err := w.eventually(ctx, "all nodes refuse the gateway's old card", func() error { return w.refuseGateway(ctx) }); err != nil {
		return errors.Join(err, exchange())
	}
	if err := exchange(); err != nil {
		return err
	}
	return w.ready(ctx)
}

// refuseGateway is nil when each node hears a gateway and refuses it for its epoch.
func (w *World) refuseGateway(ctx context.Context) error {
	for _, m := range w.nodes() {
		d, err := m.Diag(ctx)
		if err != nil {
			return err
		}
		var said []string
		refuses := false
		for _, h := range d.Health {
			for _, c := range h.Checks {
				said = append(said, c.Name+": "+c.Detail)
				refuses = refuses || strings.Contains(c.Detail, "is refused")
			}
		}
		if err := expect(refuses, "that %s refuses the gateway, it says %q", m.Name(), said); err != nil {
			return err
		}
	}
	return nil
}

var claimCodes = regexp.MustCompile(`claim code ([0-9A-Z-]+)`)

// claimCode is the one that a console has shown last. Each start has a file of its own.
func claimCode(console string) (string, error) {
	text, err := os.ReadFile(console)
	if err != nil {
		return "", err
	}
	found := claimCodes.FindAllSubmatch(text, -1)
	if len(found) == 0 {
		return "", errors.New("expected a claim code on the console, got none")
	}
	code := string(found[len(found)-1][1])
	return code, expect(len(code) > 8, "a claim code on the console, got %s", fmt.Sprintf("%q", code))
}
