package profile

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"halo.internal/model/atomicfile"
	"halo.internal/model/auditlog"
)

// AuditMark is the newest place of a network's audit log that was verified from
// here. It outlives sessions, and is in a file of its own.
type AuditMark struct {
	NetworkKey string    `json:"network_key"`
	ID         int64     `json:"id"`
	Hash       string    `json:"hash"` // hexadecimal
	Time       time.Time `json:"time"` // of the verification, by the gateway's clock
}

// Head returns the place.
func (m AuditMark) Head() (auditlog.Head, error) {
	hash, err := hex.DecodeString(m.Hash)
	if err != nil {
		return auditlog.Head{}, fmt.Errorf("hash: expected hexadecimal digits: %w", err)
	}
	return auditlog.Head{ID: m.ID, Hash: hash}, nil
}

// LoadAuditMark reads the file at path. Where there is none, the error wraps
// fs.ErrNotExist.
func LoadAuditMark(path string) (AuditMark, error) {
	f, err := os.Open(path)
	if err != nil {
		return AuditMark{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return AuditMark{}, err
	}
	var m AuditMark
	if len(b) > maxSize {
		return AuditMark{}, fmt.Errorf("%s: expected at most %d octets", path, maxSize)
	}
	if err = json.Unmarshal(b, &m); err == nil {
		_, err = m.Head()
	}
	if err != nil {
		return AuditMark{}, fmt.Errorf("%s: expected a file as haloctl writes it: %w", path, err)
	}
	return m, nil
}

// Save writes the file for its owner alone.
func (m AuditMark) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}
