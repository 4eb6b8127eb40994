package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// networkFile names, in the gateway's folder, the gateway that the folder
// belongs to.
const networkFile = "network"

// settle makes dir the folder of the gateway id. A card that was given another
// network's bundle keeps the old network's folder beside it, as dir-ID, and finds
// it again should it go back; its users, nodes and CA mean nothing to the new
// one. It returns the ID of a gateway whose folder was set aside, or "".
func settle(dir, id string) (aside string, err error) {
	marker := filepath.Join(dir, networkFile)
	b, err := os.ReadFile(marker)
	owner := strings.TrimSpace(string(b))
	switch {
	case err == nil && owner == id:
		return "", nil
	case err == nil && identity.ValidID(owner):
		if err := atomicfile.Rename(dir, dir+"-"+owner); err != nil {
			return "", fmt.Errorf("set the folder of gateway %s aside: %w", owner, err)
		}
		aside = owner
	case err == nil:
		return "", fmt.Errorf("%s: expected the ID of a gateway, got %.30q: delete the file if this card was never another gateway's", marker, owner)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := atomicfile.Rename(dir+"-"+id, dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return aside, fmt.Errorf("take the folder of gateway %s back: %w", id, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return aside, err
	}
	return aside, atomicfile.Write(marker, []byte(id+"\n"), 0o600)
}

func (p *prepared) noteAside(id string) {
	p.note("gateway.set-aside", model.Warning, "this card was the gateway "+id+": its users, nodes and telemetry are kept aside, this network starts anew",
		map[string]string{"gateway": id})
}
