package dot11

import "fmt"

// Status is a status code of an Authentication frame (9.4.1.9).
type Status uint16

// Status codes of SAE.
const (
	Success                   Status = 0
	UnspecifiedFailure        Status = 1
	AntiCloggingTokenRequired Status = 76
	UnsupportedGroup          Status = 77
	UnknownPasswordIdentifier Status = 123
	SAEHashToElement          Status = 126
)

// String names the code.
func (s Status) String() string {
	switch s {
	case Success:
		return "success"
	case UnspecifiedFailure:
		return "unspecified failure"
	case AntiCloggingTokenRequired:
		return "anti-clogging token required"
	case UnsupportedGroup:
		return "unsupported group"
	case UnknownPasswordIdentifier:
		return "unknown password identifier"
	case SAEHashToElement:
		return "hash to element"
	}
	return fmt.Sprintf("status %d", uint16(s))
}

// Reason is a reason code of a Mesh Peering Close (9.4.1.7).
type Reason uint16

// Reasons of mesh peering.
const (
	MeshPeeringCancelled        Reason = 52
	MeshMaxPeers                Reason = 53
	MeshConfigPolicyViolation   Reason = 54
	MeshCloseReceived           Reason = 55
	MeshMaxRetries              Reason = 56
	MeshConfirmTimeout          Reason = 57
	MeshInvalidGTK              Reason = 58
	MeshInconsistentParameters  Reason = 59
	MeshInvalidSecurityCapacity Reason = 60
)

// String names the code.
func (r Reason) String() string {
	switch r {
	case MeshPeeringCancelled:
		return "peering cancelled"
	case MeshMaxPeers:
		return "enough peers"
	case MeshConfigPolicyViolation:
		return "configuration against policy"
	case MeshCloseReceived:
		return "close received"
	case MeshMaxRetries:
		return "no answer to the last retry"
	case MeshConfirmTimeout:
		return "no confirm in time"
	case MeshInvalidGTK:
		return "invalid group key"
	case MeshInconsistentParameters:
		return "inconsistent parameters"
	case MeshInvalidSecurityCapacity:
		return "invalid security capability"
	}
	return fmt.Sprintf("reason %d", uint16(r))
}
