// Package firewall is what people set of the gateway's firewall: a policy that is
// edited as a draft, looked at before it holds, applied on trial, and kept when
// somebody has confirmed it over a connection that began after it held. What
// nobody confirms comes back to what held before: by halo-mesh's own clock, so that
// it does whatever becomes of this process, and with any restart of either, so that
// it does after a power cut. config.db has what holds for good; halo-mesh has a copy
// for the time before this process is there.
package firewall

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Kinds of events.
const (
	EventApplied   = "firewall.applied"   // a policy is on trial; fields by, confirm_s
	EventConfirmed = "firewall.confirmed" // it is kept; field by
	EventReverted  = "firewall.reverted"  // what held before holds again; fields by, reason
)

// Mesh is the part of halo-mesh's socket that is used.
type Mesh interface {
	PutFirewallPolicy(context.Context, model.FirewallOrder) error
	PreviewFirewall(context.Context, model.FirewallQuestion) (model.FirewallPreview, error)
}

var _ Mesh = (*local.Mesh)(nil)

// Config is what New needs.
type Config struct {
	DB     *store.DB
	Clock  *clock.Clock
	Events *events.Log
	Mesh   Mesh
}

// Caller is whoever asks, and the connection that he asks by.
type Caller struct {
	Actor  string
	Remote netip.Addr
	Local  netip.AddrPort // the zero value: within the device
	Since  time.Time      // when the connection began; the zero value: it is not known
}

// Service may be used from any goroutine. Follow has to be called with each status of
// halo-mesh's.
type Service struct {
	Config

	mu    sync.Mutex // guards what follows and serialises changes
	trial *trial
	told  time.Time // when halo-mesh has last taken something
	seen  *model.FirewallInForce
}

// trial is a policy on trial as this process knows it.
type trial struct {
	digest string
	began  time.Time // when halo-mesh had taken it
	until  time.Time
}

// New returns the service. A trial that this process finds is over: it began before a
// restart.
func New(ctx context.Context, c Config) (*Service, error) {
	s := &Service{Config: c}
	r, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if r.trial != nil {
		if err := s.revert(ctx, "restarted", r.trialBy); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// row is the one of the table.
type row struct {
	kept, draft model.FirewallPolicy
	edited      bool
	keptAt      *time.Time
	keptBy      string
	draftAt     *time.Time
	draftBy     string
	trial       *model.FirewallPolicy
	trialAt     *time.Time
	trialBy     string
	reverted    *apitype.FirewallReverted
}

func (s *Service) read(ctx context.Context) (r row, err error) {
	var kept string
	var draft, trial, reverted sql.NullString
	var keptAt, draftAt, trialAt sql.NullInt64
	err = s.DB.Read().QueryRowContext(ctx, `SELECT kept, kept_at, kept_by, draft, draft_at, draft_by, trial, trial_at, trial_by, reverted FROM firewall`).
		Scan(&kept, &keptAt, &r.keptBy, &draft, &draftAt, &r.draftBy, &trial, &trialAt, &r.trialBy, &reverted)
	if err != nil {
		return r, store.Classify(err)
	}
	r.keptAt, r.draftAt, r.trialAt = store.TimePtr(keptAt), store.TimePtr(draftAt), store.TimePtr(trialAt)
	if err := json.Unmarshal([]byte(kept), &r.kept); err != nil {
		return r, fmt.Errorf("stored firewall policy: %w", err)
	}
	r.draft = r.kept.Clone()
	if r.edited = draft.Valid; r.edited {
		r.draft = model.FirewallPolicy{}
		if err := json.Unmarshal([]byte(draft.String), &r.draft); err != nil {
			return r, fmt.Errorf("stored draft of the firewall policy: %w", err)
		}
	}
	if trial.Valid {
		r.trial = &model.FirewallPolicy{}
		if err := json.Unmarshal([]byte(trial.String), r.trial); err != nil {
			return r, fmt.Errorf("stored firewall policy on trial: %w", err)
		}
	}
	if reverted.Valid {
		r.reverted = &apitype.FirewallReverted{}
		if err := json.Unmarshal([]byte(reverted.String), r.reverted); err != nil {
			return r, fmt.Errorf("how the last trial of a firewall policy ended: %w", err)
		}
	}
	return r, nil
}

// State returns what is set, edited and on trial.
func (s *Service) State(ctx context.Context) (apitype.Firewall, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state(ctx)
}

func (s *Service) state(ctx context.Context) (apitype.Firewall, error) {
	if err := s.expire(ctx); err != nil {
		return apitype.Firewall{}, err
	}
	r, err := s.read(ctx)
	if err != nil {
		return apitype.Firewall{}, err
	}
	f := apitype.Firewall{
		Kept: r.kept, KeptAt: r.keptAt, KeptBy: r.keptBy, Draft: r.draft, Edited: r.edited, Digest: r.draft.Digest(), Reverted: r.reverted,
	}
	if r.edited {
		f.DraftAt, f.DraftBy = r.draftAt, r.draftBy
	}
	if s.trial != nil && r.trial != nil {
		f.Trial = &apitype.FirewallTrial{Policy: *r.trial, By: r.trialBy, LeftS: s.left()}
		if r.trialAt != nil {
			f.Trial.Since = *r.trialAt
		}
	}
	if s.seen != nil {
		f.Problem = s.seen.Problem
		want := r.kept.Digest()
		f.InForce = s.seen.Kept == want && s.seen.Trial == ""
		if f.Trial != nil {
			f.InForce = s.seen.Trial == s.trial.digest
		}
	}
	return f, nil
}

func (s *Service) left() int {
	return int(max(0, time.Until(s.trial.until)+time.Second-1) / time.Second)
}

// Tag returns the entity tag of what is edited: the draft as a whole.
func Tag(f apitype.Firewall) string { return tagOf(f.Digest) }

func tagOf(digest string) string { return `"` + digest + `"` }

// Edit changes a draft that meets the condition by f, which returns an error of its own
// where it has nothing to change.
func (s *Service) Edit(ctx context.Context, actor string, m etag.Match, f func(*model.FirewallPolicy) error) (apitype.Firewall, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.read(ctx)
	if err != nil {
		return apitype.Firewall{}, err
	}
	if err := m.Check(tagOf(r.draft.Digest())); err != nil {
		return apitype.Firewall{}, err
	}
	p := r.draft.Clone()
	if err := f(&p); err != nil {
		return apitype.Firewall{}, err
	}
	if err := p.Validate(); err != nil {
		return apitype.Firewall{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "%v", err)
	}
	switch p.Digest() {
	case r.draft.Digest(): // as it was
	case r.kept.Digest():
		err = s.exec(ctx, `UPDATE firewall SET draft = NULL`)
	default:
		err = s.exec(ctx, `UPDATE firewall SET draft = ?, draft_at = ?, draft_by = ?`, text(p), store.Millis(s.Clock.Now()), actor)
	}
	if err != nil {
		return apitype.Firewall{}, err
	}
	return s.state(ctx)
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("firewall: " + err.Error()) // of strings, numbers and addresses
	}
	return string(b)
}

func (s *Service) exec(ctx context.Context, query string, args ...any) error {
	return s.DB.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

// Discard gives a draft up that meets the condition.
func (s *Service) Discard(ctx context.Context, m etag.Match) (apitype.Firewall, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.read(ctx)
	if err != nil {
		return apitype.Firewall{}, err
	}
	if err := m.Check(tagOf(r.draft.Digest())); err != nil {
		return apitype.Firewall{}, err
	}
	// That a trial came to nothing is settled with it.
	if err := s.exec(ctx, `UPDATE firewall SET draft = NULL, reverted = NULL`); err != nil {
		return apitype.Firewall{}, err
	}
	return s.state(ctx)
}

// Preview tells what the draft would change of what is in force.
func (s *Service) Preview(ctx context.Context, c Caller) (model.FirewallPreview, error) {
	r, err := s.read(ctx)
	if err != nil {
		return model.FirewallPreview{}, err
	}
	return s.preview(ctx, r.draft, c)
}

func (s *Service) preview(ctx context.Context, p model.FirewallPolicy, c Caller) (model.FirewallPreview, error) {
	q := model.FirewallQuestion{Policy: p}
	if c.Local.IsValid() {
		q.Remote, q.Local = c.Remote, c.Local
	}
	answer, err := s.Mesh.PreviewFirewall(ctx, q)
	return answer, ofMesh(err)
}

// ofMesh makes a problem of what halo-mesh answers.
func ofMesh(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, local.ErrAbsent):
		return apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemMeshAbsent, "%v", err).After(5 * time.Second)
	}
	if r, ok := errors.AsType[*local.Refusal](err); ok && r.Status/100 == 4 {
		return apitype.Refuse(r.Status, "", "%s", r.Text)
	}
	return err
}

// Apply has the draft in force on trial.
func (s *Service) Apply(ctx context.Context, c Caller, a apitype.ApplyFirewall) (apitype.Firewall, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	none := apitype.Firewall{}
	if err := s.expire(ctx); err != nil {
		return none, err
	}
	r, err := s.read(ctx)
	switch {
	case err != nil:
		return none, err
	case s.trial != nil:
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallTrial, "a policy of %s is on trial for another %d s: confirm it or revert it first", r.trialBy, s.left())
	case a.Digest != "" && a.Digest != r.draft.Digest():
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallDraft, "digest: the draft is another one by now, %s, edited by %s", r.draft.Digest(), r.draftBy)
	case !r.edited:
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallDraft, "the draft is what holds already: there is nothing to apply")
	}
	p, err := s.preview(ctx, r.draft, c)
	if err != nil {
		return none, err
	}
	if (p.LocksOut != "" || len(p.Breaks) > 0) && !a.Anyway {
		return none, locksOut(p)
	}
	now := s.Clock.Now()
	if err := s.exec(ctx, `UPDATE firewall SET trial = ?, trial_at = ?, trial_by = ?, reverted = NULL`, text(r.draft), store.Millis(now), c.Actor); err != nil {
		return none, err
	}
	if err := s.Mesh.PutFirewallPolicy(ctx, model.FirewallOrder{Policy: r.draft, TrialS: a.ConfirmS}); err != nil {
		// Whether halo-mesh has it, only its status will tell; if so, Follow ends it.
		return none, errors.Join(ofMesh(err), s.exec(context.WithoutCancel(ctx), `UPDATE firewall SET trial = NULL`))
	}
	s.told = time.Now()
	s.trial = &trial{digest: r.draft.Digest(), began: s.told, until: s.told.Add(time.Duration(a.ConfirmS) * time.Second)}
	s.seen = &model.FirewallInForce{Kept: r.kept.Digest(), Trial: s.trial.digest, LeftS: a.ConfirmS}
	s.Events.Add(EventApplied, model.Warning, "", fmt.Sprintf("%s has applied another firewall policy, which holds for %d s unless it is confirmed", c.Actor, a.ConfirmS),
		map[string]string{"by": c.Actor, "confirm_s": fmt.Sprint(a.ConfirmS)})
	return s.state(ctx)
}

func locksOut(p model.FirewallPreview) *apitype.Problem {
	detail := "the draft would shut what the network needs"
	if p.LocksOut != "" {
		detail = "the draft would shut you out: a new connection like this one would be refused by " + p.LocksOut
	}
	out := apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallLocksOut, "%s; apply it with anyway, if that is meant", detail)
	for _, b := range p.Breaks[:min(len(p.Breaks), 16)] {
		out.Errors = append(out.Errors, apitype.Detail{Message: b})
	}
	return out
}

// Confirm keeps what is on trial. It must be asked by a connection that began after
// the trial did: one that was open before stays open, whatever the rules say, and
// proves nothing.
func (s *Service) Confirm(ctx context.Context, c Caller) (apitype.Firewall, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	none := apitype.Firewall{}
	if err := s.expire(ctx); err != nil {
		return none, err
	}
	r, err := s.read(ctx)
	switch {
	case err != nil:
		return none, err
	case s.trial == nil || r.trial == nil:
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallTrial, "no firewall policy is on trial: it was reverted, or confirmed already")
	case c.Local.IsValid() && !c.Since.IsZero() && c.Since.Before(s.trial.began):
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallConnection, "this connection began before the policy held, and would stay open whatever it says: confirm it by a new one")
	}
	args := []any{text(*r.trial), store.Millis(s.Clock.Now()), c.Actor}
	query := `UPDATE firewall SET kept = ?, kept_at = ?, kept_by = ?, trial = NULL, reverted = NULL`
	if r.draft.Digest() == s.trial.digest {
		query += `, draft = NULL`
	}
	if err := s.exec(ctx, query, args...); err != nil {
		return none, err
	}
	// From here on it is kept, also where halo-mesh does not answer now: Follow hands it
	// over again.
	s.trial = nil
	s.put(ctx, *r.trial)
	s.Events.Add(EventConfirmed, model.Info, "", c.Actor+" has confirmed the firewall policy", map[string]string{"by": c.Actor})
	return s.state(ctx)
}

// put hands a policy over that is to hold for good.
func (s *Service) put(ctx context.Context, p model.FirewallPolicy) {
	if err := s.Mesh.PutFirewallPolicy(ctx, model.FirewallOrder{Policy: p}); err != nil {
		s.seen = nil
		return
	}
	s.told = time.Now()
	s.seen = &model.FirewallInForce{Kept: p.Digest()}
}

// Revert ends the trial: what held before holds again. The draft stays.
func (s *Service) Revert(ctx context.Context, c Caller) (apitype.Firewall, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	none := apitype.Firewall{}
	if err := s.expire(ctx); err != nil {
		return none, err
	}
	if s.trial == nil {
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFirewallTrial, "no firewall policy is on trial")
	}
	r, err := s.read(ctx)
	if err != nil {
		return none, err
	}
	if err := s.revert(ctx, "asked", c.Actor); err != nil {
		return none, err
	}
	s.put(ctx, r.kept)
	return s.state(ctx)
}

// revert notes that the trial is over. s.mu is held, but for New.
func (s *Service) revert(ctx context.Context, reason, by string) error {
	now := s.Clock.Now().UTC()
	if err := s.exec(ctx, `UPDATE firewall SET trial = NULL, reverted = ?`, text(apitype.FirewallReverted{Time: now, Reason: reason, By: by})); err != nil {
		return err
	}
	s.trial = nil
	words := map[string]string{
		"not-confirmed": "the firewall policy that %s had applied was not confirmed in time: what held before holds again",
		"restarted":     "the gateway started again before the firewall policy that %s had applied was confirmed: what held before holds again",
		"asked":         "%s has reverted the firewall policy on trial: what held before holds again",
	}[reason]
	s.Events.Add(EventReverted, model.Warning, "", fmt.Sprintf(words, by), map[string]string{"by": by, "reason": reason})
	return nil
}

// expire ends a trial whose time is over; halo-mesh does so by itself. s.mu is held.
func (s *Service) expire(ctx context.Context) error {
	if s.trial == nil || time.Now().Before(s.trial.until) {
		return nil
	}
	return s.over(ctx, "not-confirmed")
}

func (s *Service) over(ctx context.Context, reason string) error {
	r, err := s.read(ctx)
	if err != nil {
		return err
	}
	return s.revert(ctx, reason, r.trialBy)
}

// Follow compares what halo-mesh says that is in force with what is to be, and hands
// it over. asked is when its status was asked for; f is nil for a halo-mesh that has
// no say in it.
func (s *Service) Follow(ctx context.Context, asked time.Time, f *model.FirewallInForce) error {
	if f == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.expire(ctx); err != nil {
		return err
	}
	if asked.Before(s.told) {
		return nil // of a time before what it was told last
	}
	s.seen = f
	if s.trial != nil {
		if f.Trial == s.trial.digest {
			return nil
		}
		// It has started again, and so has what it keeps.
		if err := s.over(ctx, "restarted"); err != nil {
			return err
		}
	}
	r, err := s.read(ctx)
	if err != nil {
		return err
	}
	if f.Trial == "" && f.Kept == r.kept.Digest() {
		return nil
	}
	if err := s.Mesh.PutFirewallPolicy(ctx, model.FirewallOrder{Policy: r.kept}); err != nil {
		return fmt.Errorf("the firewall policy: %w", err)
	}
	s.told = time.Now()
	return nil
}

// Reverted returns how the last trial ended, nil where it was confirmed or none was.
func (s *Service) Reverted(ctx context.Context) (*apitype.FirewallReverted, error) {
	f, err := s.State(ctx)
	return f.Reverted, err
}
