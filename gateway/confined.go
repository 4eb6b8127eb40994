package gateway

import (
	"path/filepath"

	"halo.internal/gateway/confine"
	"halo.internal/health"
	"halo.internal/model/paths"
)

// confine gives up what this process needs no more, now that it is known which folder is
// its own. A kernel that cannot do it is no reason not to serve: /health says so.
func (d *daemon) confine(dir string) {
	if !d.Confine {
		return
	}
	n := confine.Needs{Write: []string{dir}, Read: append(confine.System(), string(d.State), paths.ImageInfo)}
	if d.Alone {
		n.Write, n.Owner = []string{string(d.State)}, true // it keeps the identity, too
	} else {
		n.Read = append(n.Read, filepath.Dir(d.Identity))
	}
	o, err := confine.Process(n)
	lacking := health.Degraded
	if d.Alone {
		lacking = health.OK // a laptop is its owner's
	}
	switch {
	case err != nil:
		d.Log.Error("this process is not confined", "err", err)
		d.health.Set(checkConfined, health.Degraded, "this process could not give up what it does not need: "+err.Error())
	case o.ABI == 0:
		d.Log.Warn("the kernel has no landlock", "outcome", o.String())
		d.health.Set(checkConfined, lacking, "the kernel has no landlock: this process could write outside of its folder; "+o.String())
	default:
		d.Log.Info("this process gave up what it does not need", "outcome", o.String())
		d.health.Set(checkConfined, health.OK, o.String())
	}
}
