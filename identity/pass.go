package identity

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// PassScheme is that of an Authorization header with a pass.
const PassScheme = "HALO-Pass"

// passLife is how far the clocks of gateway and node may be apart. Passes travel in the
// overlay alone, so that nobody hears one who could use it.
const passLife = 10 * time.Minute

const passContext = "halo pass 1"

// Pass is what the gateway shows to a node, in an Authorization header, to prove that a
// request is its own: of a device in the overlay that the gateway translates the
// addresses of, the node sees the gateway's address too. It holds for one node and one
// request, which about names, for some minutes.
func (k Key) Pass(node, about string, at time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
	return PassScheme + " " + base64.RawURLEncoding.EncodeToString(append(b, k.Sign(passContext, passed(node, about, b))...))
}

// CheckPass tells what is wrong with an Authorization header that is to hold a pass of p,
// the network's key.
func (p PublicKey) CheckPass(header, node, about string, now time.Time) error {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, PassScheme) || len(text) > 256 {
		return fmt.Errorf("expected a pass of the gateway (Authorization: %s …)", PassScheme)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 8 || !p.Verify(passContext, passed(node, about, b[:8]), b[8:]) {
		return fmt.Errorf("the pass is not the gateway's, or not for this request")
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	if d := now.Sub(at).Abs(); d > passLife {
		return fmt.Errorf("the pass is of %s, and here it is %s", at.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// passed is what is signed; a node's ID has no 0.
func passed(node, about string, at []byte) []byte {
	return append(append(append(at[:8:8], node...), 0), about...)
}
