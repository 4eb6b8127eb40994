package prepare

// The Pi's firmware files come from this module. Importing it keeps its version
// and hash in go.mod and go.sum, where everything else is pinned too.
import _ "github.com/gokrazy/firmware"
