package scenarios

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"

	"halo.internal/lab/admin"
	"halo.internal/model/apitype"
)

// restoredGateway loses the gateway's card, and has a fresh one, without a bundle, become
// the gateway by a backup. Nodes take it for theirs with nobody touching them. The gateway
// is cut off before the backup is made: what nodes are acknowledged after a backup is lost
// with the card.
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
	if err := w.Net.FreshCard(ctx, g); err != nil {
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
	return w.Recovered(ctx, o, r)
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
