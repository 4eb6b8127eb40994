package ctl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/atomicfile"
)

const caLong = `The network's CA certifies the gateway's API and nothing else: it is constrained to
.halo, .local, localhost and to private addresses, so that trusting it gives nobody
the Internet. haloctl knows it from claim, login or restore. A browser has to be given
it once, on each machine; docs/security.md says how.`

func (a *app) caCommand() *cobra.Command {
	var out string
	export := &cobra.Command{
		Use: "export", Short: "write the network's CA for a browser or another program", Args: cobra.NoArgs, Long: caLong,
		RunE: func(c *cobra.Command, _ []string) error { return a.caExport(out) },
	}
	export.Flags().StringVar(&out, "out", "", "`file` to write (PEM), such as halo-ca.crt; - for standard output")
	show := &cobra.Command{
		Use: "show", Short: "the network's CA, and its fingerprint to compare", Args: cobra.NoArgs, Long: caLong,
		RunE: func(c *cobra.Command, _ []string) error { return a.caShow(c.Context()) },
	}
	return group("ca", "the network's certificate authority", show, export)
}

// pinnedCA is the CA that the profile knows.
func (a *app) pinnedCA() (*x509.Certificate, error) {
	t, err := a.target()
	if err == nil && t.ca == nil {
		err = &hintError{errors.New("no CA is known here yet"), "claim the gateway or log in to it over https first: that makes sure of the CA; on the gateway itself, give --config a profile made so"}
	}
	return t.ca, err
}

func (a *app) caExport(out string) error {
	if out == "" {
		return &usageError{errors.New("--out: expected a file for the CA, or - for standard output")}
	}
	ca, err := a.pinnedCA()
	if err != nil {
		return err
	}
	if out == "-" {
		_, err := io.WriteString(a.env.Stdout, client.EncodeCA(ca))
		return err
	}
	if err := atomicfile.Write(out, []byte(client.EncodeCA(ca)), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(a.env.Stderr, "Wrote %s: fingerprint %s.\n", out, client.Fingerprint(ca))
	return nil
}

// caInfo is what there is to say of a CA.
type caInfo struct {
	Subject   string    `json:"subject"`
	SHA256    string    `json:"sha256"`
	Known     bool      `json:"known"` // from a claim, login or restore; else nothing vouches for it
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Names     []string  `json:"names"`
	Addresses []string  `json:"addresses"`
}

func (a *app) caShow(ctx context.Context) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	ca, known := t.ca, t.ca != nil
	if !known {
		if t.base.Scheme != "https" {
			_, err := a.pinnedCA()
			return err
		}
		if ca, err = client.FetchCA(ctx, t.base); err != nil {
			return err
		}
	}
	info := caInfo{Subject: ca.Subject.String(), SHA256: client.Fingerprint(ca), Known: known, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, Names: ca.PermittedDNSDomains}
	for _, n := range ca.PermittedIPRanges {
		info.Addresses = append(info.Addresses, n.String())
	}
	return a.show(info, func(w io.Writer) error {
		t := table.New()
		t.Row("CA", info.Subject)
		t.Row("SHA-256", info.SHA256)
		t.Row("Valid", info.NotBefore.Format(time.DateOnly)+" to "+info.NotAfter.Format(time.DateOnly))
		t.Row("Names", strings.Join(info.Names, " "))
		t.Row("Addresses", strings.Join(info.Addresses, " "))
		if !known {
			t.Row("Known", "no: the gateway presents it and nothing vouches for it yet; compare the fingerprint with its console")
		}
		return t.Write(w)
	})
}
