package brain

import (
	"context"
	"database/sql"
)

// Adopt has components that are assigned to a device, and to its processes, be assigned to
// the one that has taken its place, within the transaction of that
// (registry.Registry.OnAdopt). Adopted has to be called once it is committed.
func (b *Brain) Adopt(ctx context.Context, tx *sql.Tx, old, node string) error {
	const of = ` FROM neuron_parts WHERE kind = 'device' AND target = ?1 OR kind IN ('process', 'sensor') AND substr(target, -length(?1) - 1) = '@' || ?1`
	if _, err := tx.ExecContext(ctx, `INSERT INTO neuron_parts (neuron, component, kind, target)
		SELECT neuron, component, kind, substr(target, 1, length(target) - length(?1)) || ?2`+of+` ON CONFLICT DO NOTHING`, old, node); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE`+of, old)
	return err
}

// Adopted has what is known of assignments read anew.
func (b *Brain) Adopted(string, string) { b.changes.Add(1) }
