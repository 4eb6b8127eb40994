package apitype

import "time"

// CreateBackup is the body of POST /v1/backup.
type CreateBackup struct {
	Passphrase string `json:"passphrase" minLength:"12" maxLength:"256" doc:"what the file is encrypted with: at least 12 characters; without it nobody can restore it"`
	Telemetry  bool   `json:"telemetry,omitempty" doc:"with what the nodes have measured, which is most of it"`
}

// BackupStatus is how well the gateway is backed up.
type BackupStatus struct {
	Last   *Backup      `json:"last,omitempty" doc:"the last backup that was made; absent: none was"`
	Copies []ConfigCopy `json:"copies" doc:"of the configuration, on this card: for a database that is damaged, not for a lost card"`
	Bytes  int64        `json:"bytes" doc:"about how large a backup is at most, without telemetry"`
}

// Backup is one that was made.
type Backup struct {
	ID        string    `json:"id"`
	Created   time.Time `json:"created"`
	By        string    `json:"by" doc:"who asked for it"`
	Telemetry bool      `json:"telemetry"`
}

// ConfigCopy is a copy of the configuration beside it.
type ConfigCopy struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`
}

// Restored is what a gateway is about to become.
type Restored struct {
	ID      string    `json:"id" doc:"of the backup"`
	Created time.Time `json:"created" doc:"when the backup was made"`
	Network string    `json:"network"`
	Node    string    `json:"node" doc:"canonical ID of the gateway"`
	Version string    `json:"version" doc:"of the release that made the backup"`
	Epoch   uint64    `json:"epoch" doc:"that it has at least: nodes refuse lower ones from then on"`
}
