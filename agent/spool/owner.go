package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"halo.internal/model/atomicfile"
)

// Owner says whose readings a spool holds. A card that is given another
// network's bundle must not bring the old one's readings there, and under a new
// identity the old one's numbers would be taken for used ones.
type Owner struct {
	Network string // its key; empty: none yet
	Node    string // canonical ID
}

// ownerFile names the owner in the spool's directory.
const ownerFile = "owner"

// String is what the file says.
func (o Owner) String() string {
	network := o.Network
	if network == "" {
		network = "-"
	}
	return network + " " + o.Node
}

// folder is where the owner's spool lies while another's is in its place.
func (o Owner) folder(dir string) string {
	return fmt.Sprintf("%s-%x", dir, sha256.Sum256([]byte(o.String())))[:len(dir)+1+16]
}

// takes tells whether what belongs to other may go on in o's name: readings
// from before there was a network, and those of a device that lost its bundle.
func (o Owner) takes(other Owner) bool {
	return o.Node == other.Node && (o.Network == other.Network || o.Network == "" || other.Network == "")
}

// settle makes dir the owner's. What another left there is set aside, the
// latest of such alone, and found again should the card go back. It returns
// where, or "".
func settle(dir string, o Owner) (aside string, err error) {
	file := filepath.Join(dir, ownerFile)
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	network, node, known := strings.Cut(strings.TrimSpace(string(b)), " ")
	if network == "-" {
		network = ""
	}
	switch was := (Owner{network, node}); {
	case known && (was == o || o.takes(was) && o.Network == ""):
		return "", nil
	case known && !o.takes(was):
		aside = was.folder(dir)
		if err := makeWay(dir, aside, o.folder(dir)); err != nil {
			return "", fmt.Errorf("set the spool of another network aside: %w", err)
		}
	}
	if err := atomicfile.Rename(o.folder(dir), dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return aside, fmt.Errorf("take the spool back: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return aside, err
	}
	return aside, atomicfile.Write(file, []byte(o.String()+"\n"), 0o600)
}

// makeWay renames dir to aside and removes what was set aside before, but for
// what is wanted back.
func makeWay(dir, aside, back string) error {
	old, err := filepath.Glob(dir + "-*")
	if err != nil {
		return err
	}
	for _, d := range old {
		if d != back {
			if err := os.RemoveAll(d); err != nil {
				return err
			}
		}
	}
	return atomicfile.Rename(dir, aside)
}
