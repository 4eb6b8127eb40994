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
