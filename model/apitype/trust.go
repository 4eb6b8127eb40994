package apitype

import "time"

// TrustedMAC admits the first device that says it has this MAC.
type TrustedMAC struct {
	MAC     string     `json:"mac"`
	Note    string     `json:"note,omitempty"`
	Created time.Time  `json:"created"`
	By      string     `json:"by" doc:"who put it on the list"`
	Node    string     `json:"node,omitempty" doc:"canonical ID of the node that came with it; it admits no other"`
	Used    *time.Time `json:"used,omitempty"`
}

// TrustedMACList is a page of trusted MACs.
type TrustedMACList struct {
	Items []TrustedMAC `json:"items"`
	Next  string       `json:"next,omitempty"`
}

// UpdateTrustedMAC is the body of PATCH /v1/trust/macs/{mac}. What is left out stays.
type UpdateTrustedMAC struct {
	Note *string `json:"note,omitempty" maxLength:"128"`
}

// TrustMAC is the body of POST /v1/trust/macs.
type TrustMAC struct {
	MAC  string `json:"mac" minLength:"1" maxLength:"32" doc:"six octets in hex, e.g. 02:00:00:00:00:01"`
	Note string `json:"note,omitempty" maxLength:"128"`
}
