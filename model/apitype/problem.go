package apitype

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Types of problems (RFC 9457, member "type") that a program acts on; all
// others are "about:blank" and explained by their status and detail.
const (
	ProblemJoinNonce      = "join-nonce"              // 401: sign with the member "nonce" and post again
	ProblemJoinPending    = "join-pending"            // 403: an admin has to approve; ask again later
	ProblemJoinRejected   = "join-rejected"           // 403: an admin said no
	ProblemJoinRevoked    = "join-revoked"            // 403: this node was revoked
	ProblemJoinSignature  = "join-signature"          // 403: the signature does not fit the key
	ProblemJoinNetwork    = "join-network"            // 403: the request is for another network
	ProblemJoinKey        = "join-key"                // 403: the WireGuard key is another node's, or the node does not prove to have it
	ProblemTokenInvalid   = "token-invalid"           // 403: not a join token of this network
	ProblemTokenNone      = "token-none"              // why a registration waits; 429 rate-limited when it cannot
	ProblemTokenExpired   = "token-expired"           // why a registration waits; 403 when it cannot
	ProblemTokenUsedUp    = "token-used-up"           // the same
	ProblemTokenRevoked   = "token-revoked"           // the same
	ProblemAlreadyClaimed = "already-claimed"         // 409: there is an admin; log in instead
	ProblemClaimProof     = "claim-proof"             // 403: wrong claim code, or an exchange that ended
	ProblemLogin          = "login-failed"            // 401: wrong name or password
	ProblemRefresh        = "refresh-failed"          // 401: log in again
	ProblemRateLimited    = "rate-limited"            // 429: after the seconds in Retry-After
	ProblemPlainHTTP      = "tls-required"            // 403: secrets travel over TLS, loopback or overlay only
	ProblemPassword       = "password-too-weak"       // 422
	ProblemNameTaken      = "name-taken"              // 409
	ProblemETag           = "etag-mismatch"           // 412: it was changed since the client read it; read it again
	ProblemCondition      = "condition-required"      // 428: it replaces what others may have changed: send If-Match with its ETag, or *
	ProblemKeyReused      = "idempotency-key-reused"  // 422: the key came with another request before
	ProblemKeyBusy        = "idempotency-key-busy"    // 409: the first request with this key is not done yet
	ProblemKeyLost        = "idempotency-answer-lost" // 409: the request was carried out, but its answer is not there any more: look at what is there
	ProblemScope          = "scope-missing"           // 403: the role or token does not allow this
	ProblemStore          = "store-unavailable"       // 503: database locked or /perm full; try again

	ProblemNodeCannot = "node-cannot" // 409: the node has said that it cannot do this; its code and reason are in detail
	ProblemJobOver    = "job-over"    // 409: it has ended already

	ProblemNotRecorded = "not-recorded" // 404: nothing is known of that time, or of that node

	ProblemBackupPassphrase = "backup-passphrase" // 422: it does not open the backup
	ProblemBackupDamaged    = "backup-damaged"    // 422: cut short, changed, or no backup at all
	ProblemBackupNewer      = "backup-newer"      // 422: a newer release made it; update this device first
	ProblemBackupTooLarge   = "backup-too-large"  // 413: the card has no room for it
	ProblemBackupBusy       = "backup-busy"       // 409: another backup or restore is on its way
	ProblemNotFresh         = "not-fresh"         // 409: this gateway has an admin and nodes; a restore takes a fresh one

	ProblemJoinQuarantined    = "join-quarantined"    // 403: this node's key was there twice at once; an admin has to release it
	ProblemStillOnline        = "still-online"        // 409: the node whose place is to be taken is there
	ProblemOverlayKey         = "overlay-key"         // 403, 409: the WireGuard key is somebody else's, or not shown to be had
	ProblemOverlayCertificate = "overlay-certificate" // 403: not an own operator's certificate that holds
	ProblemFirewallLocksOut   = "firewall-locks-out"  // 409: the draft would shut out whoever asks, or what the network needs
	ProblemFirewallTrial      = "firewall-trial"      // 409: one is on trial already, or none is
	ProblemFirewallDraft      = "firewall-draft"      // 409: the draft is another one than was meant, or has nothing to apply
	ProblemFull               = "limit-reached"       // 409: there are as many of its kind as the gateway keeps; remove some
	ProblemNodeRevoked        = "node-revoked"        // 409: nothing can be done with a node that is no member any more
	ProblemLastAdmin          = "last-admin"          // 409: nobody would be left to look after the network
	ProblemGatewayItself      = "gateway-itself"      // 409: the gateway cannot be without itself
	ProblemGatewayTwin        = "gateway-twin"        // 409, 503: another card with this gateway's key serves the network, and this one stands down
	ProblemEpochKept          = "epoch-kept"          // 409: the epoch cannot be raised so
	ProblemNotQuarantined     = "not-quarantined"     // 409: there is nothing to release it from
	ProblemClockUnsure        = "clock-unsure"        // 409: the gateway's clock is a guess; log in from a device that knows the time
	ProblemMeshAbsent         = "mesh-unavailable"    // 503: halo-mesh does not answer; try again
	ProblemMeshRefuses        = "mesh-refuses"        // 409: halo-mesh does not take it; nothing was changed
	ProblemSubscriptionTaken  = "subscription-taken"  // 409: this connection has one of that name
	ProblemFirewallConnection = "firewall-connection" // 409: confirm by a connection that began after the policy held
)

// Problem is the body of every error: application/problem+json.
type Problem struct {
	Type   string   `json:"type" doc:"what a program acts on; about:blank when the status says it all"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail,omitempty" doc:"what was expected and what came"`
	Nonce  string   `json:"nonce,omitempty" doc:"with join-nonce: what to sign"`
	Takes  []string `json:"takes,omitempty" doc:"with join-nonce: members of the request that this gateway knows and older ones refuse"`
	Errors []Detail `json:"errors,omitempty" doc:"which values of the request are wrong"`

	retryAfter time.Duration
}

// TakesSerial is the member of Problem.Takes of gateways that know JoinRequest.Serial.
const TakesSerial = "serial"

// Detail is one wrong value in a request.
type Detail struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" doc:"e.g. body.name"`
}

// Refuse makes a problem of one of the types above; an empty type is
// "about:blank".
func Refuse(status int, typ, format string, args ...any) *Problem {
	if typ == "" {
		typ = "about:blank"
	}
	return &Problem{Type: typ, Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// After says in Retry-After when to come back.
func (p *Problem) After(d time.Duration) *Problem {
	p.retryAfter = max(d, time.Second)
	return p
}

// RetryAfter is when to come back; 0 where that was not said.
func (p *Problem) RetryAfter() time.Duration { return p.retryAfter }

// GetHeaders returns the headers that go with the problem (huma's HeadersError).
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retryAfter > 0 {
		h.Set("Retry-After", fmt.Sprint(int64(p.retryAfter.Round(time.Second)/time.Second)))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return h
}

// WriteProblem answers a request with a problem.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client went away: nobody to tell
}

// Error implements error.
func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	for _, d := range p.Errors {
		s += fmt.Sprintf("; %s: %s", d.Location, d.Message)
	}
	return s
}

// GetStatus is the HTTP status (huma's StatusError).
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }
