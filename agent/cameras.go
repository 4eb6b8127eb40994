package agent

import (
	"net/netip"
	"time"

	"halo.internal/agent/camera"
	"halo.internal/identity"
	"halo.internal/model/paths"
)

// openCameras makes what serves the cameras. Settings that are wrong are no reason to
// go without.
func (a *agent) openCameras(network string) {
	key, err := identity.ParsePublicKey(network)
	if err != nil {
		key = a.id.Key.Public() // a device without a network, whose cameras are nobody else's
	}
	a.cameras, err = camera.New(camera.Config{
		Devices: camera.Kernel{}, Settings: paths.Dir(a.path(paths.State)).File(paths.Cameras), Network: key, Node: a.id.Key.ID(), Event: a.spool.AddEvent, Now: time.Now, Log: a.log,
	})
	if err != nil {
		a.log.Warn("settings of cameras are not as they were", "err", err)
	}
}

// overlay is the device's address there, as halo-mesh says it.
func (a *agent) overlay() (netip.Addr, bool) {
	s, _ := a.seen.last()
	v4, err := netip.ParseAddr(s.OverlayV4)
	return v4, err == nil
}
