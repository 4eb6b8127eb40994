package client

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"halo.internal/model/paths"
)

// OnGateway is the address of the API on the gateway itself.
func OnGateway() *url.URL {
	return &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(paths.APIPort))}
}

// ErrPlain is wrapped where a plain connection would be readable by others.
var ErrPlain = errors.New("plain http is for the gateway itself and the encrypted overlay; use https")

// ParseGateway reads a gateway's address as a person gives it. Without a
// scheme it is https; without a port, the API's port for that scheme.
func ParseGateway(s string) (*url.URL, error) {
	text := s
	if !strings.Contains(text, "://") {
		if a, err := netip.ParseAddr(text); err == nil && a.Is6() {
			text = "[" + text + "]"
		}
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("gateway %q: expected an address such as https://192.0.2.7:%d", s, paths.APITLSPort)
	}
	if u.Scheme != "https" && u.Scheme != "http" || !validHost(u.Hostname()) || u.User != nil ||
		u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("gateway %q: expected scheme, host and port alone, such as https://192.0.2.7:%d", s, paths.APITLSPort)
	}
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(paths.APITLSPort)
		if u.Scheme == "http" {
			port = strconv.Itoa(paths.APIPort)
		}
	}
	if u.Scheme == "http" && !private(u.Hostname()) {
		return nil, fmt.Errorf("gateway %q: %w", s, ErrPlain)
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), port)}, nil
}

// validHost takes addresses, with a zone where they need one, and names.
func validHost(host string) bool {
	host, zone, _ := strings.Cut(host, "%")
	return host != "" && strings.Trim(host, hostChars+":") == "" && strings.Trim(zone, hostChars) == ""
}

const hostChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

// private tells whether plain HTTP to host can be read by nobody else: it
// stays in the machine or in the overlay's encryption.
func private(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsLoopback() || paths.OverlayNet.Contains(a))
}
