-- +goose Up

-- Certificates of operators for the doors of nodes. Serial numbers are never
-- used twice: nodes know by them which certificates are over.
CREATE TABLE operator_certificates (
    serial   INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch    INTEGER NOT NULL,
    username TEXT    NOT NULL, -- outlives the user: what was revoked stays known
    role     TEXT    NOT NULL,
    key      BLOB    NOT NULL,
    label    TEXT    NOT NULL,
    issued   INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    revoked  INTEGER
);
CREATE INDEX operator_certificates_username ON operator_certificates (username);

-- +goose Down
DROP TABLE operator_certificates;
