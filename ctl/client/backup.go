package client

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"

	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

// maxBackup bounds what is taken, in octets.
const maxBackup = 2 << 30

// BackupStatus tells when the last backup was made.
func (c *Client) BackupStatus(ctx context.Context) (apitype.BackupStatus, error) {
	return get[apitype.BackupStatus](ctx, c, "/v1/backup", nil)
}

// CreateBackup has the gateway write a backup, which goes to w as it comes: it is whole
// only when it decrypts to its end.
func (c *Client) CreateBackup(ctx context.Context, q apitype.CreateBackup, w io.Writer) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/backup", body: q, most: maxBackup}, w)
}

// Restore has a gateway that has no nodes become the one of a backup, by its admin.
func (c *Client) Restore(ctx context.Context, passphrase string, file io.Reader) (apitype.Restored, error) {
	if c.tokens == nil {
		return apitype.Restored{}, &apitype.Problem{Title: "not logged in", Status: http.StatusUnauthorized}
	}
	token, err := c.tokens.Token(ctx, "")
	if err != nil {
		return apitype.Restored{}, err
	}
	return c.restore(ctx, token, passphrase, file)
}

func (c *Client) restore(ctx context.Context, token, passphrase string, file io.Reader) (r apitype.Restored, err error) {
	in, out := io.Pipe()
	form := multipart.NewWriter(out)
	done := make(chan error, 1)
	go func() {
		err := form.WriteField("passphrase", passphrase)
		if err == nil {
			var part io.Writer
			if part, err = form.CreateFormFile("backup", "backup.age"); err == nil {
				_, err = io.Copy(part, file)
			}
		}
		err = errors.Join(err, form.Close())
		_ = out.CloseWithError(err) // whoever reads hears of it
		done <- err
	}()
	err = c.try(ctx, request{method: http.MethodPost, path: "/v1/restore", stream: in, kind: form.FormDataContentType()}, token, &r)
	_ = in.Close() // a gateway that has refused reads no further
	<-done
	return r, err
}

// Restorer may restore a backup onto a gateway that has no admin, since it has proved the
// claim code.
type Restorer struct {
	client *Client
	ticket string
	CA     *x509.Certificate // of the gateway as it is
}

// Close ends idle connections.
func (r *Restorer) Close() { r.client.Close() }

// Restore has the gateway become the one of a backup. Nothing changes unless it succeeds.
func (r *Restorer) Restore(ctx context.Context, passphrase string, file io.Reader) (apitype.Restored, error) {
	return r.client.restore(ctx, r.ticket, passphrase, file)
}

// ClaimForRestore proves the claim code for a restore alone, as Claim does. The backup goes
// to the TLS key that has proved that it knows the code, and to no other.
func ClaimForRestore(ctx context.Context, base *url.URL, code string) (_ *Restorer, err error) {
	p, err := prove(ctx, base, code, claim.ForRestore, "")
	if err != nil {
		return nil, err
	}
	p.second.Restore = true
	var done apitype.ClaimAnswer
	ca, err := p.finish(ctx, &done)
	if err == nil && done.RestoreTicket == "" {
		err = errors.New("claim: expected a ticket in the gateway's second answer; its release knows no restore")
	}
	if err != nil {
		p.client.Close()
		return nil, err
	}
	return &Restorer{client: p.client, ticket: done.RestoreTicket, CA: ca}, nil
}
