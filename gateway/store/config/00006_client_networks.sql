-- +goose Up
-- Which of the 254 networks of clients a node has: the third octet of 10.43.N.0/24. A
-- node that joined when none was left has none.
ALTER TABLE nodes ADD COLUMN clients INTEGER;
UPDATE nodes SET clients = 1 + (
    SELECT count(*) FROM nodes AS m
    WHERE m.role = 'node' AND NOT m.revoked AND (m.joined, m.id) < (nodes.joined, nodes.id)
) WHERE role = 'node' AND NOT revoked;
UPDATE nodes SET clients = NULL WHERE clients > 254;
CREATE UNIQUE INDEX nodes_by_clients ON nodes (clients) WHERE clients IS NOT NULL AND NOT revoked;

-- +goose Down
DROP INDEX nodes_by_clients;
ALTER TABLE nodes DROP COLUMN clients;
