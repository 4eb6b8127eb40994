package mesh

import "context"

// overheard is what was said past the mesh.
type overheard struct {
	from    Stranger
	payload []byte
}

// maxOverheard is how many of these wait; more are lost, and said again.
const maxOverheard = 8

// strange takes what was said past the mesh. A radio's loop hears it, which has links
// to keep: it does not wait for whoever looks at it, nor for the card.
func (m *core) strange(from Stranger, payload []byte) {
	select {
	case m.overheard <- overheard{from, payload}:
	default:
	}
}

// listenOverheard hands over what was said past the mesh, until ctx ends.
func (m *core) listenOverheard(ctx context.Context, take func(from Stranger, payload []byte)) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-m.overheard:
			take(o.from, o.payload)
		}
	}
}
