package mesh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"

	"halo.internal/model/paths"
)

// exchange asks the gateway's halo-mesh, over the overlay, for what members alone get, or
// hands it body. An answer other than want is an error; most bounds what is read of one,
// beyond which a parser finds it too long.
func exchange(ctx context.Context, client *http.Client, method, route string, body []byte, want int, most int64) ([]byte, error) {
	url := "http://" + netip.AddrPortFrom(paths.OverlayGateway, paths.PeerListPort).String() + route
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: expected %d, got %s", method, url, want, resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	return raw, nil
}
