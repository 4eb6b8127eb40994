package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"halo.internal/gateway/backup"
	"halo.internal/local"
	"halo.internal/model/apitype"
	format "halo.internal/model/backup"
)

// shelf keeps backups; err is what becomes of one, late that it comes after its first octets.
type shelf struct {
	err              error
	late             bool
	passphrase, file string
	by               string
}

func (s *shelf) Status(context.Context) (apitype.BackupStatus, error) {
	return apitype.BackupStatus{Copies: []apitype.ConfigCopy{}}, s.err
}

func (s *shelf) Create(_ context.Context, w io.Writer, passphrase string, _ bool, by string) error {
	s.passphrase, s.by = passphrase, by
	if s.err == nil || s.late {
		if _, err := w.Write(bytes.Repeat([]byte("file"), 50_000)); err != nil {
			return err
		}
	}
	return s.err
}

func (s *shelf) Restore(_ context.Context, r io.Reader, passphrase, by string) (apitype.Restored, error) {
	b, err := io.ReadAll(r)
	s.passphrase, s.file, s.by = passphrase, string(b), by
	return apitype.Restored{ID: "b1"}, errors.Join(err, s.err)
}

func TestABackupIsAFileOrAProblem(t *testing.T) {
	f := newFixture(t)
	s := &shelf{}
	f.Backups = s
	const phrase = "a phrase of a backup"
	resp, b := f.do("POST", "/v1/backup", apitype.CreateBackup{Passphrase: phrase})
	if resp.StatusCode != http.StatusOK || len(b) != 200_000 || resp.Header.Get("Content-Type") != backupType ||
		!strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment; filename=halo-") || s.by != "user:root" || s.passphrase != phrase {
		t.Errorf("got %s %v, %d octets, by %s", resp.Status, resp.Header, len(b), s.by)
	}
	for _, short := range []string{"", "short", "twelve\nchars"} {
		resp, b := f.do("POST", "/v1/backup", apitype.CreateBackup{Passphrase: short})
		if resp.StatusCode != http.StatusUnprocessableEntity || short != "" && bytes.Contains(b, []byte(short)) {
			t.Errorf("passphrase %q: %s %s", short, resp.Status, b)
		}
	}
	for _, tc := range []struct {
		err    error
		status int
		typ    string
	}{
		{ErrBackupBusy, 409, apitype.ProblemBackupBusy},
		{fmt.Errorf("%w: dial", local.ErrAbsent), 503, apitype.ProblemMeshAbsent},
		{errors.New("something"), 500, "about:blank"},
	} {
		s.err = tc.err
		var p apitype.Problem
		f.want(tc.status, "POST", "/v1/backup", apitype.CreateBackup{Passphrase: phrase}, &p)
		if p.Type != tc.typ {
			t.Errorf("%v: got %+v", tc.err, p)
		}
	}
	// Half a file is never taken for a whole one.
	s.err, s.late = errors.New("the card is gone"), true
	body, err := f.request(t, "POST", "/v1/backup", "application/json", strings.NewReader(`{"passphrase":"`+phrase+`"}`))
	if err == nil {
		t.Errorf("a backup that was cut off ended well, after %d octets", len(body))
	}
}

// request returns the error of whoever reads the answer to its end.
func (f *fixture) request(t *testing.T, method, path, kind string, in io.Reader) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+f.token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(b)), err
}

func TestARestoreIsReadAsItComes(t *testing.T) {
	f := newFixture(t)
	s := &shelf{}
	f.Backups = s
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	errField := m.WriteField("passphrase", "a phrase of a backup")
	part, err := m.CreateFormFile("backup", "x.age")
	if err == nil {
		_, err = part.Write(bytes.Repeat([]byte("x"), 10*maxBody))
	}
	if err := errors.Join(errField, err, m.Close()); err != nil {
		t.Fatal(err)
	}
	kind, body := m.FormDataContentType(), b.Bytes()
	answer, err := f.request(t, "POST", "/v1/restore", kind, bytes.NewReader(body))
	if err != nil || !strings.HasPrefix(answer, "200 ") || len(s.file) != 10*maxBody || s.passphrase != "a phrase of a backup" || s.by != "user:root" {
		t.Errorf("got %s, %v, a file of %d octets by %s", answer, err, len(s.file), s.by)
	}
	for _, tc := range []struct {
		err    error
		status int
		typ    string
	}{
		{format.ErrPassphrase, 422, apitype.ProblemBackupPassphrase}, {format.ErrDamaged, 422, apitype.ProblemBackupDamaged},
		{format.ErrNotBackup, 422, apitype.ProblemBackupDamaged}, {format.ErrNewer, 422, apitype.ProblemBackupNewer},
		{format.ErrTooLarge, 413, apitype.ProblemBackupTooLarge}, {backup.ErrNoRoom, 413, apitype.ProblemBackupTooLarge},
		{backup.ErrUnfit, 422, apitype.ProblemBackupDamaged}, {ErrBackupBusy, 409, apitype.ProblemBackupBusy},
		{fmt.Errorf("%w: a bundle waits", local.ErrBusy), 409, apitype.ProblemMeshRefuses},
	} {
		s.err = tc.err
		answer, err := f.request(t, "POST", "/v1/restore", kind, bytes.NewReader(body))
		if err != nil || !strings.HasPrefix(answer, fmt.Sprint(tc.status)) || !strings.Contains(answer, `"`+tc.typ+`"`) {
			t.Errorf("%v: got %s, %v", tc.err, answer, err)
		}
	}
	f.token = ""
	if answer, err := f.request(t, "POST", "/v1/restore", kind, bytes.NewReader(body)); err != nil || !strings.HasPrefix(answer, "401") {
		t.Errorf("without a login: %s, %v", answer, err)
	}
}
