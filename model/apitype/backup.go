package apitype

import "time"

// CreateBackup is the body of POST /v1/backup.
type CreateBackup struct {
	Passphrase string `json:"passphrase" example:"kite-amber-forty-lantern" minLength:"12" maxLength:"256" doc:"what the file is encrypted with: at least 12 characters; without it nobody can restore it"`
	Telemetry  bool   `json:"telemetry,omitempty" doc:"with what the nodes have measured, which is most of it"`
}

// BackupStatus is how well the gateway is backed up.
type BackupStatus struct {
	Last   *Backup      `json:"last,omitempty" doc:"the last backup that was made; absent: none was"`
	Copies []ConfigCopy `json:"copies" doc:"of the configuration, on this card: for a database that is damaged, not for a lost card"`
	Bytes  int64        `json:"bytes" example:"1835008" doc:"about how large a backup is at most, without telemetry"`
}

// Backup is one that was made.
type Backup struct {
	ID        string    `json:"id" example:"k3v7q2mzjtdm6n4x5p2rw7yhau"`
	Created   time.Time `json:"created"`
	By        string    `json:"by" example:"user:admin" doc:"who asked for it"`
	Telemetry bool      `json:"telemetry"`
}

// ConfigCopy is a copy of the configuration beside it.
type ConfigCopy struct {
	Name    string    `json:"name" example:"config.db.copy-1"`
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`
}

// Restored is what a gateway is about to become.
type Restored struct {
	ID      string    `json:"id" example:"k3v7q2mzjtdm6n4x5p2rw7yhau" doc:"of the backup"`
	Created time.Time `json:"created" doc:"when the backup was made"`
	Network string    `json:"network" example:"north-ridge"`
	Node    string    `json:"node" example:"n-6m2qk4zt5a3xw7c1dfhj" doc:"canonical ID of the gateway"`
	Version string    `json:"version" doc:"of the release that made the backup"`
	Epoch   uint64    `json:"epoch" example:"331001" doc:"that it has at least: nodes refuse lower ones from then on"`
}
