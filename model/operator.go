package model

// Operators is what gateway-api hands to halo-mesh about people at the nodes'
// doors (PUT /v1/operators), to be signed into the list of members.
type Operators struct {
	Floor   uint64   `json:"floor" doc:"serial numbers of certificates below are over: all of them have expired or are revoked"`
	Revoked []uint64 `json:"revoked,omitempty" doc:"of those that are not, the serial numbers that are revoked, in order"`
	Codes   uint32   `json:"codes,omitempty" doc:"generation of the nodes' codes"`
}

// MaxRevoked bounds Operators.Revoked: when there are more, the floor rises.
const MaxRevoked = 256

// CodeTry is a node's code as somebody has typed it (POST /v1/code).
type CodeTry struct {
	Code  string `json:"code"`
	Where string `json:"where" doc:"for the events, such as console ttyAMA0"`
}
