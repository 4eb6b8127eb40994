package ctl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/profile"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

func (a *app) auditCommand() *cobra.Command {
	var limit int
	list := a.call("list", "who changed what, newest last", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		entries, head, err := c.Audit(ctx, limit)
		if err != nil {
			return err
		}
		slices.Reverse(entries)
		answer := struct {
			items[apitype.AuditEntry]
			Head apitype.AuditHead `json:"head"`
		}{items[apitype.AuditEntry]{entries}, head}
		return a.show(answer, func(w io.Writer) error {
			t := table.New("TIME", "WHO", "DID", "TO", "FROM", "STATUS")
			for _, e := range entries {
				t.Row(e.Time, e.Actor, e.Action, e.Target, e.Remote, outcome(e.Status))
			}
			return t.Write(w)
		})
	})
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	var accept bool
	verify := a.call("verify", "whether the log is as it was written", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		return a.auditVerify(ctx, c, accept)
	})
	verify.Long = `Verify has the gateway walk the log, which is a chain of hashes, and then makes
sure by itself that the chain still leads from the head that it saw here last to
the one of now. The head of now is then remembered, one per network, beside your
profile. What was edited, added, moved or taken away shows, also when somebody
wrote the whole log anew, or left out its end, after you have last looked.

Exit status 1: the log was changed, or no longer has the head that is remembered.
A database that was damaged and replaced by its last copy shows the latter, too
(event store.config.restored). When you know the reason, --accept remembers the
head of now instead.`
	verify.Flags().BoolVar(&accept, "accept", false, "remember the head of now, also where the log does not lead to it from the one before")
	return group("audit", "what people and programs changed, or tried to", list, verify)
}

// outcome prints the status of an answer; there is none of a request under way,
// nor of one in which the gateway stopped.
func outcome(status int) string {
	if status == 0 {
		return "outcome unknown"
	}
	return strconv.Itoa(status)
}

// What became of the head that was remembered.
const (
	markNone    = "none"    // there was none
	markThere   = "there"   // the log leads from it to the head of now
	markDropped = "dropped" // what followed it is no longer kept
	markLost    = "lost"    // the log does not have it
	markUnknown = "unknown" // the log itself does not fit
)

// auditReport is the result of a verification.
type auditReport struct {
	apitype.AuditVerification
	Remembered struct {
		State string             `json:"state"`
		Head  *apitype.AuditHead `json:"head,omitempty"`
		Time  *time.Time         `json:"time,omitempty"` // when it was verified last
	} `json:"remembered"`
}

func (a *app) auditVerify(ctx context.Context, c *client.Client, accept bool) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	if t.path == "" {
		return errNotLoggedIn
	}
	path := besides(t.path, auditSuffix)
	mark, err := profile.LoadAuditMark(path)
	known := err == nil && mark.NetworkKey == t.prof.NetworkKey
	if err != nil && !accept && !errors.Is(err, fs.ErrNotExist) {
		return &hintError{err, "haloctl audit verify --accept begins anew"}
	}
	var r auditReport
	if r.AuditVerification, err = c.VerifyAudit(ctx); err != nil {
		return err
	}
	r.Remembered.State = markNone
	if known {
		r.Remembered.Head, r.Remembered.Time = &apitype.AuditHead{ID: mark.ID, Hash: mark.Hash}, &mark.Time
	}
	now, err := hex.DecodeString(r.Head.Hash)
	if err != nil {
		return fmt.Errorf("the head of the audit log: expected a hash of hexadecimal digits: %w", err)
	}
	var broken *auditlog.BreakError
	switch {
	case !r.Intact:
		r.Remembered.State = markUnknown
	case known:
		if r.Remembered.State, broken, err = compareMark(ctx, c, mark, auditlog.Head{ID: r.Head.ID, Hash: now}); err != nil {
			return err
		}
	}
	if r.Intact && (broken == nil || accept) {
		next := profile.AuditMark{NetworkKey: t.prof.NetworkKey, ID: r.Head.ID, Hash: r.Head.Hash, Time: c.Now().UTC().Truncate(time.Second)}
		if err := next.Save(path); err != nil {
			return err
		}
	}
	if err := a.show(r, func(w io.Writer) error { return r.table(c.Now()).Write(w) }); err != nil {
		return err
	}
	switch {
	case r.Fault != nil:
		return &hintError{fmt.Errorf("the audit log is not as it was written: record %d does not fit: expected %s, came %s", r.Fault.ID, r.Fault.Expected, r.Fault.Came),
			"keep a copy of the gateway's card; haloctl event list --kind audit. tells since when it is known"}
	case !r.Intact:
		return errors.New("the gateway says that its audit log is not intact, but not where")
	case broken != nil && !accept:
		return &hintError{fmt.Errorf("the audit log no longer has what was seen here: it was written anew, or its end was taken away: %w", broken),
			"haloctl event list --kind store. tells whether a copy took the database's place; when you know the reason, --accept"}
	}
	return nil
}

// compareMark verifies that the log leads from a mark to its head of now, which
// the gateway cannot make up.
func compareMark(ctx context.Context, c *client.Client, mark profile.AuditMark, now auditlog.Head) (state string, broken *auditlog.BreakError, err error) {
	from, err := mark.Head()
	if err != nil {
		return "", nil, err
	}
	err = auditlog.Trace(from, now, auditlog.Kept, func(after int64) ([][]byte, error) { return c.AuditRecords(ctx, after) })
	if broken, ok := errors.AsType[*auditlog.BreakError](err); ok {
		return markLost, broken, nil
	}
	if errors.Is(err, auditlog.ErrDropped) {
		return markDropped, nil, nil
	}
	return markThere, nil, err
}

func (r auditReport) table(now time.Time) *table.Table {
	t := table.New()
	if r.Intact {
		t.Row("Log", "intact")
	} else {
		t.Row("Log", "changed")
	}
	t.Row("Records", r.Records)
	if r.Since != nil {
		t.Row("Since", *r.Since)
	}
	t.People("Head", fmt.Sprintf("%d %s", r.Head.ID, r.Head.Hash))
	t.Programs("Head", r.Head.ID)
	t.Programs("Head hash", r.Head.Hash)
	seen := func(what string) {
		t.People("Remembered", fmt.Sprintf("%d: %s", r.Remembered.Head.ID, what))
		t.Programs("Remembered", r.Remembered.Head.ID)
		t.Programs("Remembered is", what)
		t.Row("Seen here", table.Age(now, *r.Remembered.Time))
	}
	switch r.Remembered.State {
	case markNone:
		t.Row("Remembered", "none until now")
	case markThere:
		seen("the log leads from there to its head")
	case markDropped:
		seen("too old to compare")
	case markLost:
		seen("the log does not have it")
	}
	return t
}
