package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"

	"halo.internal/agent/sensors"
	"halo.internal/model"
)

// maxInventory is what goes into one message: in CBOR it is less than in JSON.
const maxInventory = 56 << 10

// inventory is what is on the buses, as the gateway is told it, with its digest.
type inventory struct {
	mu      sync.Mutex // guards what follows
	version uint64
	known   bool
	digest  string
	now     model.Inventory
}

func (v *inventory) of(m *sensors.Manager) (digest string, now model.Inventory) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if version := m.Version(); !v.known || version != v.version {
		v.version, v.known, v.now = version, true, m.Inventory()
		b, err := json.Marshal(v.now)
		for i := len(v.now.Sensors) - 1; err == nil && len(b) > maxInventory && i >= 0; i-- {
			s := &v.now.Sensors[i] // what is least needed of the last of very many
			s.Values, s.Outputs, s.Title, s.Params = nil, nil, "", nil
			b, err = json.Marshal(v.now)
		}
		if err == nil {
			err = v.now.Check() // the gateway would refuse it
		}
		if err != nil {
			v.digest, v.now = "", model.Inventory{} // a number that is none, the path of a bus as nobody expects it
			return v.digest, v.now
		}
		sum := sha256.Sum256(b)
		v.digest = hex.EncodeToString(sum[:8])
	}
	return v.digest, v.now
}
