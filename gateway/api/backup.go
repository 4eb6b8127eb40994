package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"halo.internal/gateway/backup"
	"halo.internal/local"
	"halo.internal/model/apitype"
	format "halo.internal/model/backup"
)

// Backups makes backups of the gateway and takes one in.
type Backups interface {
	Status(context.Context) (apitype.BackupStatus, error)
	// Create writes a backup to w, which is worthless after an error. by is who asked.
	Create(ctx context.Context, w io.Writer, passphrase string, telemetry bool, by string) error
	// Restore prepares what the next start takes for its own, which follows soon.
	Restore(ctx context.Context, r io.Reader, passphrase, by string) (apitype.Restored, error)
}

// ErrBackupBusy is wrapped by Backups while another backup or restore is on its way.
var ErrBackupBusy = errors.New("another backup or restore is on its way")

const maxPassphrase = 4 * format.MaxPassphrase // octets

func (a *API) backupRoutes() {
	tags := []string{"backup"}
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-backup", Method: http.MethodGet, Path: "/v1/backup", Tags: tags,
		Summary: "When the last backup was made, and the copies that the gateway keeps itself",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.BackupStatus], error) {
		return answer(a.Backups.Status(ctx))
	})
	register(a, admin, huma.Operation{
		OperationID: "create-backup", Method: http.MethodPost, Path: "/v1/backup", Tags: tags,
		Summary: "A backup of the gateway, encrypted with a passphrase, while it runs",
		Description: "The answer is a file in age's format (age-encryption.org/v1), in it a tar.gz: databases, the network's key, the CA, the mesh profile. " +
			"It is whole when it decrypts to its end. Keep it and the passphrase like a key: together they are the network.",
		Responses: map[string]*huma.Response{"200": {Description: "the file", Content: map[string]*huma.MediaType{
			backupType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}},
	}, func(ctx context.Context, i *In[apitype.CreateBackup]) (*huma.StreamResponse, error) {
		if err := format.CheckPassphrase(i.Body.Passphrase); err != nil {
			return nil, apitype.Refuse(http.StatusUnprocessableEntity, apitype.ProblemPassword, "%v", err)
		}
		by := callerOf(ctx).Actor()
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.createBackup(hc, i.Body, by) }}, nil
	})
	form := &huma.MediaType{}
	register(a, access{scope: apitype.ScopeRestore}, huma.Operation{
		OperationID: "restore-backup", Method: http.MethodPost, Path: "/v1/restore", Tags: tags,
		Summary: "Make this fresh gateway the one that a backup is of",
		Description: "For a gateway without an admin, with the ticket that a claim for a restore gives; or for one that has no nodes yet, by its admin. " +
			"The body is a form whose first field is passphrase and whose second is backup, the file. All of it is checked before anything changes; then the machine restarts " +
			"as that gateway, with the backup's users, nodes, CA and mesh profile, and a higher epoch, by which nodes follow it and refuse the former one.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": form}},
	}, func(ctx context.Context, _ *nothing) (*body[apitype.Restored], error) {
		passphrase, file, err := callerOf(ctx).parts()
		if err != nil {
			return nil, err
		}
		r, err := a.Backups.Restore(ctx, file, passphrase, callerOf(ctx).Actor())
		return answer(r, ofBackup(err))
	})
	// Afterwards, or huma would read the body itself, all of it into RAM.
	form.Schema = &huma.Schema{Type: huma.TypeObject, Required: []string{"passphrase", "backup"}, Properties: map[string]*huma.Schema{
		"passphrase": {Type: huma.TypeString}, "backup": {Type: huma.TypeString, Format: "binary"},
	}}
}

const backupType = "application/octet-stream"

// createBackup answers with the file as it grows. What fails after its first octets cuts
// the answer off, so that nobody takes it for whole.
func (a *API) createBackup(hc huma.Context, c apitype.CreateBackup, by string) {
	_, w := humago.Unwrap(hc)
	file := &patientWriter{w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", backupType)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": "halo-" + time.Now().UTC().Format("20060102-150405") + ".age"}))
	buffered := bufio.NewWriterSize(file, 64<<10)
	err := a.Backups.Create(hc.Context(), buffered, c.Passphrase, c.Telemetry, by)
	if err == nil {
		err = buffered.Flush()
	}
	switch {
	case err == nil:
	case file.begun:
		a.Log.Error("a backup was cut off", "err", err)
		panic(http.ErrAbortHandler)
	default:
		w.Header().Del("Content-Disposition")
		apitype.WriteProblem(w, a.problem(hc.Context(), hc.Operation().OperationID, ofBackup(err)))
	}
}

// parts returns the passphrase of a restore and the file, which comes behind it.
func (c *caller) parts() (passphrase string, file io.Reader, err error) {
	refuse := func(format string, args ...any) error {
		return apitype.Refuse(http.StatusUnprocessableEntity, "", format, args...)
	}
	c.request.Body = struct {
		io.Reader
		io.Closer
	}{&patientReader{r: c.request.Body, control: http.NewResponseController(c.writer)}, c.request.Body}
	m, err := c.request.MultipartReader()
	if err != nil {
		return "", nil, apitype.Refuse(http.StatusUnsupportedMediaType, "", "expected a form (multipart/form-data) of passphrase and backup")
	}
	next := func(name string) (*multipart.Part, error) {
		p, err := m.NextPart()
		if err != nil || p.FormName() != name {
			return nil, refuse("expected a form whose fields are passphrase and backup, in this order; %s is missing", name)
		}
		return p, nil
	}
	p, err := next("passphrase")
	if err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(io.LimitReader(p, maxPassphrase+1))
	if err != nil || len(b) > maxPassphrase {
		return "", nil, refuse("passphrase: expected at most %d octets", maxPassphrase)
	}
	if p, err = next("backup"); err != nil {
		return "", nil, err
	}
	return string(b), p, nil
}

// ofBackup makes problems of what is wrong with a backup.
func ofBackup(err error) error {
	unprocessable := func(typ string) error {
		return apitype.Refuse(http.StatusUnprocessableEntity, typ, "%v; nothing was changed", err)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrBackupBusy):
		return apitype.Refuse(http.StatusConflict, apitype.ProblemBackupBusy, "%v", err).After(10 * time.Second)
	case errors.Is(err, format.ErrPassphrase):
		return unprocessable(apitype.ProblemBackupPassphrase)
	case errors.Is(err, format.ErrNewer):
		return unprocessable(apitype.ProblemBackupNewer)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return apitype.Refuse(http.StatusRequestTimeout, "", "nothing came for %s; nothing was changed", exchangePatience)
	case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, format.ErrDamaged):
		return apitype.Refuse(http.StatusUnprocessableEntity, apitype.ProblemBackupDamaged, "the form was cut short on its way; nothing was changed")
	case errors.Is(err, format.ErrDamaged), errors.Is(err, format.ErrNotBackup), errors.Is(err, backup.ErrUnfit):
		return unprocessable(apitype.ProblemBackupDamaged)
	case errors.Is(err, format.ErrTooLarge), errors.Is(err, backup.ErrNoRoom):
		return apitype.Refuse(http.StatusRequestEntityTooLarge, apitype.ProblemBackupTooLarge, "%v; nothing was changed", err)
	case errors.Is(err, local.ErrAbsent):
		return apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemMeshAbsent, "halo-mesh does not answer, and a backup needs what it knows: %v", err).After(5 * time.Second)
	case errors.Is(err, local.ErrBusy), errors.Is(err, local.ErrInvalid):
		return apitype.Refuse(http.StatusConflict, apitype.ProblemMeshRefuses, "halo-mesh does not take the restore: %v; nothing was changed", err)
	}
	return fmt.Errorf("backup: %w", err)
}
