package model

import "encoding/json"

// JoinContext separates join signatures from all others.
const JoinContext = "halo join 1"

// SignedBytes returns what a join signature covers: the request as JSON with
// the signature left out. Both sides build it from the struct, never from the
// bytes on the wire.
func (r JoinRequest) SignedBytes() []byte {
	r.Signature = ""
	b, err := json.Marshal(r)
	if err != nil {
		panic("model: JoinRequest cannot be marshalled: " + err.Error()) // only strings and numbers
	}
	return b
}

// JoinState is where a node stands with its network.
type JoinState string

// Join states.
const (
	JoinNoBundle  JoinState = "no-bundle" // no network to join
	JoinSearching JoinState = "searching" // the gateway was not heard yet
	JoinTrying    JoinState = "trying"    // asking, or waiting to ask again after a failure
	JoinPending   JoinState = "pending"   // an admin has to approve
	JoinRefused   JoinState = "refused"   // the gateway said no; it is asked again, slowly
	JoinJoined    JoinState = "joined"
)

// Types of the problems (RFC 9457) that POST /v1/nodes/join answers; every
// other type is a refusal.
const (
	ProblemJoinNonce   = "join-nonce"   // post again, signed over the problem's nonce
	ProblemJoinPending = "join-pending" // registered; an admin has to approve
)

// JoinProblem is what a node reads of such a problem.
type JoinProblem struct {
	Type   string `json:"type"` // one of the types above, alone or as the last part of a URI
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Nonce  string `json:"nonce,omitempty"` // of join-nonce
}
