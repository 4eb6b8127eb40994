package mesh

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"halo.internal/mesh/api"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/wireless"
)

func TestRefusalsOfRadiosHaveAKindAndKeepTheirWords(t *testing.T) {
	for from, to := range map[error]error{wireless.ErrNoRadio: api.ErrNone, wireless.ErrInvalid: api.ErrInvalid, radio.ErrBusy: api.ErrBusy} {
		err := fmt.Errorf("phy0: %w", from)
		if got := ofRadio(err); !errors.Is(got, to) || !errors.Is(got, from) || got.Error() != err.Error() {
			t.Errorf("%v: got %v", err, got)
		}
	}
	other := errors.New("the driver gave up")
	if got := ofRadio(other); got != other || ofRadio(nil) != nil {
		t.Errorf("got %v", got)
	}
}

func TestWhoTheGatewayIs(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	clients := []batman.Client{{MAC: mac(1), Originator: mac(11), Best: true}, {MAC: mac(2), Originator: mac(12)}, {MAC: mac(2), Originator: mac(13), Best: true}}
	for n, want := range map[byte]string{1: mac(11).String(), 2: mac(13).String(), 3: ""} {
		if got := behind(clients, mac(n)); got != want {
			t.Errorf("client %d: got %q, want %q", n, got, want)
		}
	}
}
