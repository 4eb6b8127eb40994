package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/doorway"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

const operatorLong = `A certificate lets its owner in at the door of every node (--node), also while
the gateway is off. Login asks for one, and commands that reach the gateway renew
it. Its key stays in a file of this machine.

Revoke that of a lost laptop; nodes hear of it as soon as the gateway's list of
members reaches them. A changed password, role or right to log in revokes all of
a user.`

func (a *app) operatorCommand() *cobra.Command {
	g := group("operator", "certificates with which people come in at nodes' doors",
		a.call("list", "certificates: all for an admin, else the own", cobra.NoArgs, a.operatorList),
		a.call("revoke SERIAL", "end a certificate before its time", cobra.ExactArgs(1), a.operatorRevoke),
		&cobra.Command{
			Use: "show", Short: "the certificate that is kept here", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return a.operatorShow() },
		},
	)
	g.Long = operatorLong
	return g
}

func (a *app) operatorList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.OperatorCertificates(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.OperatorCertificate]{list}, func(w io.Writer) error {
		t := table.New("SERIAL", "USER", "ROLE", "WHERE", "ISSUED", "ENDS", "STATE")
		for _, o := range list {
			state, ends := "good", o.Expires
			switch {
			case o.Revoked != nil:
				state, ends = "revoked", *o.Revoked
			case !c.Now().Before(o.Expires):
				state = "ended"
			}
			t.Row(o.Serial, o.Username, o.Role, o.Label, table.Age(c.Now(), o.Issued), table.Age(c.Now(), ends), state)
		}
		return t.Write(w)
	})
}

func (a *app) operatorRevoke(ctx context.Context, c *client.Client, args []string) error {
	serial, err := strconv.ParseUint(args[0], 10, 63)
	if err != nil || serial == 0 {
		return &usageError{fmt.Errorf("expected a serial number, got %q (haloctl operator list shows them)", args[0])}
	}
	if err := c.RevokeOperator(ctx, serial); err != nil {
		return notFound(err, "haloctl operator list shows the certificates")
	}
	a.say("Certificate %d is revoked.", serial)
	return nil
}

func (a *app) operatorShow() error {
	t, err := a.target()
	if err != nil {
		return err
	}
	if t.path == "" {
		return errNoCertificate
	}
	cred, err := doorway.LoadCredential(besides(t.path, operatorSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return errNoCertificate
	}
	if err != nil {
		return err
	}
	shown := apitype.OperatorCertificate{Serial: cred.Serial, Username: cred.Username, Role: cred.Role, Expires: cred.Expires, Issued: cred.Fetched}
	if key, err := cred.Key(); err == nil {
		shown.Key = key.Public().Base64()
	}
	return a.show(shown, func(w io.Writer) error {
		t := table.New()
		t.Row("Serial", strconv.FormatUint(shown.Serial, 10))
		t.Row("User", shown.Username)
		t.Row("Role", shown.Role)
		t.Row("Ends", shown.Expires)
		t.Row("Key", shown.Key)
		return t.Write(w)
	})
}

func (a *app) nodeConsoleCode(ctx context.Context, c *client.Client, args []string) error {
	n, err := c.NodeCode(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(n, func(w io.Writer) error {
		t := table.New()
		t.People("Node", fmt.Sprintf("%s (%s)", n.Name, n.Node))
		t.Programs("Node", n.Name)
		t.Programs("ID", n.Node)
		t.Row("Code", n.Code)
		return t.Write(w)
	})
}

func (a *app) renewCodes(ctx context.Context, c *client.Client, _ []string) error {
	n, err := c.RenewNodeCodes(ctx)
	if err != nil {
		return err
	}
	return a.show(n, func(io.Writer) error {
		a.say("All nodes have other codes now; those out of reach take the old one until they hear of it.")
		return nil
	})
}
