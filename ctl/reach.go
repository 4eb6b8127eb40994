package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/doorway"
	"halo.internal/ctl/profile"
	"halo.internal/ctl/table"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Files beside a profile.
const (
	operatorSuffix = ".operator" // the operator's key and certificate
	nodesSuffix    = ".nodes"    // what nodes there are, as the gateway last said
	auditSuffix    = ".audit"    // the audit log's head that was verified last
)

func besides(path, suffix string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + suffix
}

const (
	doorWait   = 45 * time.Second // for the way to a node and back, on the slowest link
	lookupWait = 4 * time.Second  // for the gateway, which may be off, to say where a node is
	nameWait   = 2 * time.Second
	readyWait  = 20 * time.Second // after a login
	freshKnown = time.Hour        // what the gateway said is not asked for again
)

// askDevice makes a command about a device: of the gateway through its API, of
// the one that haloctl runs on with --local, of any node by its door with --node.
func (a *app) askDevice(use, short string, args cobra.PositionalArgs, run func(context.Context, air, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withDevice(c.Context(), func(from air) error { return run(c.Context(), from, args) })
		},
	}
}

func (a *app) withDevice(ctx context.Context, run func(air) error) error {
	switch {
	case a.node != "":
		d, err := a.door(ctx)
		if err != nil {
			return err
		}
		defer d.Close()
		return run(d)
	case a.onDevice():
		d := device{local.NewMeshAt(a.env.MeshSocket, a.env.Console)}
		defer d.Close()
		return run(d)
	}
	api, err := a.connect()
	if err != nil {
		return err
	}
	defer api.Close()
	a.keepUp(ctx, api)
	return run(api)
}

// onDevice tells whether the device itself is asked: with --local, and at its
// console unless another gateway is named.
func (a *app) onDevice() bool { return a.here || a.env.Console != "" && a.gateway == "" }

// refuseElsewhere is for commands that only the gateway answers.
func (a *app) refuseElsewhere() error {
	if a.here || a.node != "" {
		return &usageError{errors.New("this asks the gateway; --node and --local are for mesh, net, event list, status, health and support")}
	}
	return nil
}

// door returns the node of --node.
func (a *app) door(ctx context.Context) (device, error) {
	who, address, err := doorway.Parse(a.node)
	if err != nil {
		return device{}, &usageError{err}
	}
	if d, ok := a.thisDevice(ctx, who); ok && address == "" {
		return d, nil
	}
	t, err := a.target()
	if err != nil {
		return device{}, err
	}
	if t.path == "" {
		return device{}, errNoCertificate
	}
	cred, err := doorway.LoadCredential(besides(t.path, operatorSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return device{}, errNoCertificate
	}
	if err != nil {
		return device{}, err
	}
	target, err := a.find(ctx, t, who, address)
	if err != nil {
		return device{}, err
	}
	way, err := doorway.Transport(target, cred)
	if errors.Is(err, doorway.ErrNoCredential) {
		return device{}, errNoCertificate
	}
	if err != nil {
		return device{}, err
	}
	return device{local.NewMeshOver(way, "the door of "+target.Who(), doorWait)}, nil
}

// errNoCertificate is returned where a door is to be opened with nothing.
var errNoCertificate = fmt.Errorf("to come in at a node's door: %w", doorway.ErrNoCredential)

// thisDevice tells whether who is the device that haloctl runs on, whose door is
// not for itself.
func (a *app) thisDevice(ctx context.Context, who string) (device, bool) {
	if _, err := os.Stat(a.env.MeshSocket); err != nil {
		return device{}, false
	}
	d := device{local.NewMeshAt(a.env.MeshSocket, a.env.Console)}
	s, err := d.Status(ctx)
	if err == nil && (who == s.Node || who == s.Name || who == s.OverlayV4 || who == s.OverlayV6) {
		return d, true
	}
	d.Close()
	return device{}, false
}

// find says where a node is and who: by what the gateway says or last said; its
// name may be known to the mesh's name server; an address that was given comes
// before all.
func (a *app) find(ctx context.Context, t target, who, address string) (doorway.Target, error) {
	known, err := doorway.LoadKnown(besides(t.path, nodesSuffix))
	if err != nil {
		return doorway.Target{}, err
	}
	n, found := known.Find(who)
	if age := time.Since(known.Updated); !found || age > freshKnown || age < 0 {
		switch asked, err := a.lookUp(ctx, who); {
		case err == nil:
			n, found = asked, true
		case !found && address == "" && !doorway.IsAddress(who):
			if code, _ := judge(err); code == ExitNotFound {
				return doorway.Target{}, notFound(err, "haloctl node list shows the nodes")
			}
		}
	}
	target := doorway.Target{ID: n.ID, Name: n.Name}
	switch {
	case address != "":
		target.Addresses = []string{address}
	case doorway.IsAddress(who):
		target.Addresses = []string{who}
	}
	if identity.ValidID(who) {
		target.ID = who
	}
	if target.ID == "" {
		// Whoever is there has to be one that the gateway has named.
		target.Name, target.Accept = who, func(id string) error { return a.oneOf(known, id, who, address) }
	}
	if target.Addresses == nil {
		for _, addr := range []string{textOf(n.OverlayV4), textOf(n.OverlayV6)} {
			if addr != "" {
				target.Addresses = append(target.Addresses, addr)
			}
		}
		if !found {
			target.Addresses = namesAddresses(ctx, who)
		}
	}
	if len(target.Addresses) == 0 {
		return target, &hintError{fmt.Errorf("where %s is, is not known here", target.Who()),
			"give its address, as in --node " + who + "@10.43.7.1; at its own port for clients that is the way out, the default gateway"}
	}
	return target, nil
}

// oneOf accepts a node that the gateway has named.
func (a *app) oneOf(known doorway.Known, id, who, address string) error {
	if n, ok := known.Find(id); ok && (n.Name == who || doorway.IsAddress(who)) {
		return nil
	}
	at := address
	if at == "" {
		at = who
	}
	return &hintError{fmt.Errorf("the node at %s is %s, which the gateway has not named here as %s", at, id, who),
		"if that is the one (its console shows its ID): --node " + id + "@" + at}
}

func textOf(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// lookUp asks the gateway, if there is a session and it answers soon.
func (a *app) lookUp(ctx context.Context, who string) (doorway.Node, error) {
	c, err := a.connect()
	if err != nil {
		return doorway.Node{}, err
	}
	defer c.Close()
	soon, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	if doorway.IsAddress(who) {
		nodes, err := a.nodes(soon, c)
		if err != nil {
			return doorway.Node{}, err
		}
		n, ok := doorway.KnownOf(nodes, time.Now()).Find(who)
		if !ok {
			return n, &apitype.Problem{Title: "Not Found", Status: 404, Detail: "no node has the address " + who}
		}
		return n, nil
	}
	n, err := c.Node(soon, who)
	if err != nil {
		return doorway.Node{}, err
	}
	return doorway.Node{ID: n.ID, Name: n.Name, Role: n.Role, OverlayV4: n.OverlayV4, OverlayV6: n.OverlayV6}, nil
}

// namesAddresses asks the name server for a node's name in .halo. Who is there
// shows in the handshake.
func namesAddresses(ctx context.Context, name string) []string {
	ctx, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	list, err := net.DefaultResolver.LookupHost(ctx, strings.TrimSuffix(name, ".halo")+".halo")
	if err != nil {
		return nil
	}
	return list[:min(len(list), 4)]
}

// nodes asks the gateway for all nodes and remembers what it says for when it is
// off.
func (a *app) nodes(ctx context.Context, c *client.Client) ([]apitype.Node, error) {
	list, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if t, err := a.target(); err == nil && t.path != "" && t.prof.Gateway != "" {
		_ = doorway.KnownOf(list, time.Now()).Save(besides(t.path, nodesSuffix)) // it is for later; what was asked for is there
	}
	return list, nil
}

// nodeNames maps nodes to their names.
func (a *app) nodeNames(ctx context.Context, c *client.Client) (map[string]string, error) {
	nodes, err := a.nodes(ctx, c)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(nodes))
	for _, n := range nodes {
		names[n.ID] = n.Name
	}
	return names, nil
}

// namesOf maps nodes to their names, as far as who is asked knows them: a device
// knows none, but what the gateway last said is here.
func (a *app) namesOf(ctx context.Context, from air) (map[string]string, error) {
	if c, ok := from.(*client.Client); ok {
		return a.nodeNames(ctx, c)
	}
	t, err := a.target()
	if err != nil || t.path == "" {
		return nil, nil
	}
	known, err := doorway.LoadKnown(besides(t.path, nodesSuffix))
	if err != nil {
		return nil, nil
	}
	return known.Names(), nil
}

// keepUp has the gateway sign the operator's key when that is due, for when it is
// off. That it can't is no reason to fail at what is asked for now.
func (a *app) keepUp(ctx context.Context, c *client.Client) {
	t, err := a.target()
	if err != nil || t.path == "" || t.prof.Username == "" {
		return
	}
	_ = certify(ctx, c, t.path, t.prof, false)
}

// getReady gets after a login what is needed when the gateway is off. A gateway
// that has none of it, or a slow one, is no reason to call the login off.
func (a *app) getReady(ctx context.Context, c *client.Client, path string, p profile.Profile) {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	err := forgetOther(path, p.Username)
	if err == nil {
		err = certify(ctx, c, path, p, true) // the one at hand may be revoked
	}
	if err != nil {
		fmt.Fprintln(a.env.Stderr, "haloctl: no certificate for the nodes' doors:", table.Clean(err.Error()))
		return
	}
	if nodes, err := c.Nodes(ctx); err == nil {
		_ = doorway.KnownOf(nodes, time.Now()).Save(besides(path, nodesSuffix)) // the next command that lists nodes tries again
	}
}

// forgetOther takes the key of another user off, so that what one may do at
// doors is not the next one's to inherit.
func forgetOther(path, username string) error {
	cred, err := doorway.LoadCredential(besides(path, operatorSuffix))
	if err == nil && cred.Username != username {
		return forgetOperator(path)
	}
	return nil
}

// certify gets a certificate if one is due, or in any case.
func certify(ctx context.Context, c *client.Client, path string, p profile.Profile, anyway bool) error {
	file := besides(path, operatorSuffix)
	cred, err := doorway.LoadCredential(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		cred = doorway.NewCredential()
	case err != nil:
		return err
	case !anyway && !cred.Due(time.Now(), p.Username, p.Role):
		return nil
	}
	key, err := cred.Key()
	if err != nil {
		return err
	}
	label, _ := os.Hostname() // without a name it has none
	o, err := c.CertifyOperator(ctx, apitype.CreateOperatorCertificate{Key: key.Public().Base64(), Label: label[:min(len(label), 64)]})
	if err != nil {
		return err
	}
	cred.Take(o, time.Now())
	return cred.Save(file)
}

// forgetOperator takes key and certificate off this machine.
func forgetOperator(path string) error {
	err := os.Remove(besides(path, operatorSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// device is halo-mesh of one device, by its socket or its door.
type device struct{ *local.Mesh }

// MeshStatus asks halo-mesh.
func (d device) MeshStatus(ctx context.Context) (model.MeshStatus, error) { return d.Status(ctx) }

// Peers asks halo-mesh.
func (d device) Peers(ctx context.Context) ([]model.MeshPeer, error) {
	s, err := d.Status(ctx)
	return s.Peers(), err
}

// Now is this machine's time: a device tells ages, not times, of what it has
// heard.
func (device) Now() time.Time { return time.Now() }
