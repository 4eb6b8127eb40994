package admin

import (
	"bytes"
	"context"
	"errors"
	"mime/multipart"
	"net/http"

	"halo.internal/model/apitype"
)

// form is a body that is no JSON.
type form struct {
	text []byte
	kind string
}

// Backup returns a backup of the gateway, which takes a passphrase to open.
func (a *Admin) Backup(ctx context.Context, q apitype.CreateBackup) ([]byte, error) {
	return a.fetch(ctx, http.MethodPost, "/v1/backup", nil, q)
}

// Restore has a gateway without nodes become the one of a backup. It starts anew soon after.
func (a *Admin) Restore(ctx context.Context, passphrase string, backup []byte) error {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	err := m.WriteField("passphrase", passphrase)
	part, err2 := m.CreateFormFile("backup", "backup.age")
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if _, err := part.Write(backup); err != nil {
		return err
	}
	if err := m.Close(); err != nil {
		return err
	}
	return a.do(ctx, http.MethodPost, "/v1/restore", nil, form{b.Bytes(), m.FormDataContentType()}, nil)
}
