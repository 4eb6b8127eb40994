// Package version says which build this is. The stamp comes from a generated,
// ignored file that is embedded, so that a binary built by plain go, by make
// and by gok carries the same one. It depends only on the commit (or on
// SOURCE_DATE_EPOCH), which keeps builds reproducible.
package version

import (
	"embed"
	"encoding/json"
	"fmt"
	"runtime"
	"time"
)

//go:embed stamp
var stamp embed.FS

// Info is the stamp of a build.
type Info struct {
	Version string    `json:"version"` // git describe, e.g. "v0.1.0-12-gabc1234"
	Commit  string    `json:"commit"`  // full hash, with "-dirty" when files had changed
	Built   time.Time `json:"built"`   // UTC; time of the commit unless told otherwise
	Go      string    `json:"go"`      // toolchain
}

// Unstamped is the build time of a binary built without a stamp. It is also
// the earliest time HALO believes in.
var Unstamped = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// Get returns this binary's stamp; one built without `halo-image stamp` calls
// itself "unstamped".
func Get() Info {
	i := Info{Version: "unstamped", Commit: "unknown", Built: Unstamped, Go: runtime.Version()}
	if b, err := stamp.ReadFile("stamp/stamp.json"); err == nil {
		_ = json.Unmarshal(b, &i) // a broken stamp leaves what was readable; it only names the build
	}
	i.Go = runtime.Version()
	return i
}

// String is the one-line form printed by --version.
func (i Info) String() string {
	return fmt.Sprintf("%s commit %s built %s %s", i.Version, i.Commit, i.Built.UTC().Format(time.RFC3339), i.Go)
}
