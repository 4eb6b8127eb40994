package ctl

import (
	"context"
	"errors"
	"net/http"

	"halo.internal/ctl/client"
	"halo.internal/ctl/doorway"
	"halo.internal/local"
	"halo.internal/model/apitype"
)

// Exit statuses; scripts rely on them.
const (
	ExitOK           = 0
	ExitError        = 1
	ExitUsage        = 2
	ExitUnreachable  = 3
	ExitUnauthorised = 4
	ExitNotFound     = 5
)

// usageError is a command line that was not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// hintError carries the next step where only the command knows it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// errNotLoggedIn is returned where a command needs a session and there is none.
var errNotLoggedIn = errors.New("not logged in")

// judge gives the exit status for an error and what a person can do next.
func judge(err error) (code int, hint string) {
	code, hint = classify(err)
	if h, ok := errors.AsType[*hintError](err); ok {
		hint = h.hint
	}
	return code, hint
}

func classify(err error) (code int, hint string) {
	if errors.Is(err, context.Canceled) {
		return ExitError, ""
	}
	if errors.Is(err, errNotLoggedIn) {
		return ExitUnauthorised, "log in with haloctl login (a new gateway: haloctl claim)"
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return ExitUsage, "haloctl --help, or --help after a command"
	}
	if _, ok := errors.AsType[*client.UntrustedError](err); ok {
		return ExitError, "check the address; if the gateway was replaced, compare the new CA's fingerprint with its console and log in with --ca-sha256"
	}
	if _, ok := errors.AsType[*client.UnreachableError](err); ok {
		return ExitUnreachable, "check the address and that the gateway is up; without --gateway and profile, haloctl expects to run on the gateway"
	}
	if errors.Is(err, doorway.ErrNoCredential) {
		return ExitUnauthorised, "haloctl login, while the gateway is in reach: it fetches one that holds for weeks"
	}
	if _, ok := errors.AsType[*doorway.UnreachableError](err); ok {
		return ExitUnreachable, "join the overlay's clients (at a port for clients of any node); at the node's own, give its address there: --node NODE@10.43.7.1, the default gateway"
	}
	if _, ok := errors.AsType[*doorway.StrangerError](err); ok {
		return ExitError, "check the address: another device answers there"
	}
	if errors.Is(err, local.ErrDenied) {
		return ExitUnauthorised, doorHint(err)
	}
	if errors.Is(err, local.ErrAbsent) {
		return ExitUnreachable, "--local is for a device that runs HALO, with its system's rights; without it, the gateway is asked"
	}
	if errors.Is(err, local.ErrNone) {
		return ExitNotFound, "haloctl mesh status, asked in the same way, shows what the device is and has; haloctl health, what it waits for"
	}
	if p, ok := errors.AsType[*apitype.Problem](err); ok {
		return judgeProblem(p)
	}
	return ExitError, ""
}

// doorHint says what to do when a node's door stays shut.
func doorHint(err error) string {
	switch r, _ := errors.AsType[*local.Refusal](err); {
	case r.Status == http.StatusTooManyRequests:
		return "wait, then try again"
	case r.Status == http.StatusForbidden:
		return "your role does not allow this; ask an admin"
	}
	return "haloctl login, while the gateway is in reach, for another certificate"
}

func judgeProblem(p *apitype.Problem) (code int, hint string) {
	switch p.Type {
	case apitype.ProblemLogin:
		return ExitUnauthorised, "check user name and password"
	case apitype.ProblemRefresh:
		return ExitUnauthorised, "the session ended; haloctl login"
	case apitype.ProblemClaimProof:
		return ExitUnauthorised, "compare the claim code with the one on the gateway's console or in claim.txt on its boot partition"
	case apitype.ProblemAlreadyClaimed:
		return ExitError, "the gateway has an admin already; haloctl login"
	case apitype.ProblemRateLimited:
		return ExitError, "wait a minute before the next try"
	case apitype.ProblemPlainHTTP:
		return ExitError, "use https, port 8443"
	case apitype.ProblemScope:
		return ExitUnauthorised, "your role does not allow this; ask an admin"
	case apitype.ProblemETag:
		return ExitError, "somebody has changed it meanwhile: look at it again, then try again"
	case apitype.ProblemBackupNewer:
		return ExitError, "put the release that made the backup, or a later one, on the new card"
	case apitype.ProblemNotFresh:
		return ExitError, "write a gateway's image to another card and restore onto that"
	case apitype.ProblemStore:
		return ExitError, "haloctl health says what the gateway waits for; then try again"
	}
	switch p.Status {
	case http.StatusUnauthorized:
		return ExitUnauthorised, "haloctl login"
	case http.StatusForbidden:
		return ExitUnauthorised, ""
	case http.StatusNotFound:
		return ExitNotFound, ""
	}
	return ExitError, ""
}
