package apitype

import "time"

// CreateOperatorCertificate is the body of POST /api/auth/operator-certificates.
type CreateOperatorCertificate struct {
	Key   string `json:"key" maxLength:"64" doc:"Ed25519 public key, base64; its private half stays with the operator"`
	Label string `json:"label,omitempty" maxLength:"64" doc:"where the key is, such as the name of a laptop"`
	Days  int    `json:"days,omitempty" minimum:"1" maximum:"90" default:"30" doc:"how long it holds"`
}

// OperatorCertificate lets a person in at the doors of all nodes.
type OperatorCertificate struct {
	Serial      uint64     `json:"serial"`
	Username    string     `json:"username"`
	Role        string     `json:"role" enum:"admin,operator,viewer"`
	Key         string     `json:"key" doc:"Ed25519 public key, base64"`
	Label       string     `json:"label,omitempty"`
	Epoch       uint64     `json:"epoch" doc:"of the gateway; with a higher one it is over"`
	Issued      time.Time  `json:"issued"`
	Expires     time.Time  `json:"expires"`
	Revoked     *time.Time `json:"revoked,omitempty"`
	Certificate string     `json:"certificate,omitempty" doc:"signed by the network's key, base64; in the answer to its making alone"`
}

// OperatorCertificateList is a page of certificates.
type OperatorCertificateList struct {
	Items []OperatorCertificate `json:"items"`
	Next  string                `json:"next,omitempty"`
}

// NodeCode is what a person types at the console of a node.
type NodeCode struct {
	Node       string `json:"node"`
	Name       string `json:"name"`
	Code       string `json:"code"`
	Generation uint32 `json:"generation" doc:"a node that has not heard of it yet takes the code of an earlier one"`
}

// NodeCodes is the answer to POST /v1/trust/node-codes/renew.
type NodeCodes struct {
	Generation uint32 `json:"generation"`
}
