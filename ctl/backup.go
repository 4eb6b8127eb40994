package ctl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/profile"
	"halo.internal/ctl/table"
	"halo.internal/health"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
	"halo.internal/model/backup"
)

const envPassphrase = "HALO_BACKUP_PASSPHRASE"

const backupLong = `Create writes one file with all that makes this gateway: users, nodes, the
network's key and CA, the mesh profile, and with --telemetry what the nodes have
measured. The gateway goes on meanwhile. With the file and its passphrase a fresh
card becomes this gateway (haloctl restore), and nodes follow it by themselves.

Whoever has both can be your network: keep the passphrase elsewhere than the
file. Without it nobody can open the file, and nobody can help.

The file is in age's format: without haloctl, age -d FILE | tar xz opens it.`

const restoreLong = `Restore makes a fresh gateway the one that a backup is of: write a gateway's
image to a new card, start it, and give this command its address and the claim
code that it shows. An admin can do it too, while the gateway has no nodes.

The file is checked here and there before anything changes. Then the device
restarts as that gateway: people log in again, with their names and passwords as
they were. Nodes follow it without being touched, and refuse the former card if
that comes back. Who was revoked after the backup has to be revoked again.`

func (a *app) backupCommand() *cobra.Command {
	var passphraseFile string
	var telemetry bool
	create := a.call("create FILE", "write a backup of the gateway into a file", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if a.env.Console != "" {
			return &usageError{errors.New("a console has no place for a file; do this from a laptop")}
		}
		return a.backupCreate(ctx, c, args[0], passphraseFile, telemetry)
	})
	create.Long = backupLong
	create.ValidArgsFunction = nil // a file
	create.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`file` that holds the passphrase (or "+envPassphrase+")")
	create.Flags().BoolVar(&telemetry, "telemetry", false, "with what the nodes have measured")
	show := &cobra.Command{
		Use: "show FILE", Short: "open a backup, check all of it, and say what it is of", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.backupShow(c.Context(), args[0], passphraseFile) },
	}
	show.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`file` that holds the passphrase (or "+envPassphrase+")")
	return group("backup", "the gateway in one encrypted file", create, show,
		a.call("status", "when the last backup was made, and the gateway's own copies", cobra.NoArgs, a.backupStatus))
}

func (a *app) backupStatus(ctx context.Context, c *client.Client, _ []string) error {
	s, err := c.BackupStatus(ctx)
	if err != nil {
		return err
	}
	return a.show(s, func(w io.Writer) error {
		t := table.New()
		if s.Last == nil {
			t.Row("Last backup", "none")
		} else {
			t.Row("Last backup", table.Age(c.Now(), s.Last.Created))
			t.Row("By", s.Last.By)
			t.Row("With telemetry", s.Last.Telemetry)
		}
		t.Row("Size at most", table.Bytes(s.Bytes)) // without telemetry
		copies := table.New("COPY ON THE CARD", "MADE", "SIZE")
		for _, k := range s.Copies {
			copies.Row(k.Name, table.Age(c.Now(), k.Created), table.Bytes(k.Bytes))
		}
		return writeTables(w, []section{{1, t}, {len(s.Copies), copies}})
	})
}

// newPassphrase asks twice; who types none gets one made.
func (a *app) newPassphrase(ctx context.Context, file string) (phrase string, made bool, err error) {
	if file == "" && a.env.Getenv(envPassphrase) == "" && a.env.Terminal == nil {
		return "", false, &usageError{fmt.Errorf("passphrase: nobody to ask; set %s or give --passphrase-file", envPassphrase)}
	}
	asks := file == "" && a.env.Getenv(envPassphrase) == ""
	phrase, err = a.secret(ctx, fmt.Sprintf("Passphrase (%d characters or more; nothing: make one)", backup.MinPassphrase), file, envPassphrase)
	if err != nil {
		return "", false, err
	}
	if asks && phrase == "" {
		return backup.NewPassphrase(), true, nil
	}
	if err := backup.CheckPassphrase(phrase); err != nil {
		return "", false, err
	}
	if asks {
		again, err := a.env.Terminal.Secret(ctx, "The same again: ")
		if err != nil {
			return "", false, err
		}
		if again != phrase {
			return "", false, errors.New("the two passphrases differ; nothing was written")
		}
	}
	return phrase, false, nil
}

func (a *app) backupCreate(ctx context.Context, c *client.Client, path, passphraseFile string, telemetry bool) (err error) {
	phrase, made, err := a.newPassphrase(ctx, passphraseFile)
	if err != nil {
		return err
	}
	// Beside its place until it is whole.
	tmp, err := os.CreateTemp(filepath.Dir(path), ".halo-backup-*")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, ignoreGone(tmp.Close()), ignoreGone(os.Remove(tmp.Name())))
	}()
	if err := c.CreateBackup(ctx, apitype.CreateBackup{Passphrase: phrase, Telemetry: telemetry}, tmp); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m, err := checkBackup(ctx, tmp, phrase)
	if err != nil {
		return fmt.Errorf("what the gateway sent does not open again: %w", err)
	}
	info, err := tmp.Stat()
	if err != nil {
		return err
	}
	if err := atomicfile.Rename(tmp.Name(), path); err != nil {
		return err
	}
	if made {
		fmt.Fprintf(a.env.Stderr, "Passphrase, shown once: %s\n", phrase)
	}
	if a.json {
		return a.show(m, nil)
	}
	a.say("Wrote %s, %s, and opened it again: all of %s is in it.", path, table.Bytes(info.Size()), m.Network)
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// checkBackup reads a backup to its end.
func checkBackup(ctx context.Context, r io.Reader, phrase string) (backup.Manifest, error) {
	m, _, err := openBackup(ctx, r, phrase)
	return m, err
}

// openBackup reads a backup to its end and returns the CA that is in it.
func openBackup(ctx context.Context, r io.Reader, phrase string) (backup.Manifest, *x509.Certificate, error) {
	b, err := backup.Open(r, phrase)
	if err != nil {
		return backup.Manifest{}, nil, err
	}
	var ca []byte
	err = b.Parts(func(name string) (io.Writer, int64, error) {
		if name == backup.CACert {
			return writerFunc(func(p []byte) (int, error) { ca = append(ca, p...); return len(p), nil }), 64 << 10, ctx.Err()
		}
		return io.Discard, backup.MaxSize, ctx.Err()
	})
	if err != nil {
		return b.Manifest, nil, err
	}
	cert, err := client.ParseCA(string(ca))
	return b.Manifest, cert, err
}

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (a *app) backupShow(ctx context.Context, path, passphraseFile string) error {
	if a.env.Console != "" {
		return &usageError{errors.New("a console has no files; do this from a laptop")}
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	phrase, err := a.secret(ctx, "Passphrase of the backup", passphraseFile, envPassphrase)
	if err != nil {
		return err
	}
	m, err := checkBackup(ctx, f, phrase)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return a.show(m, func(w io.Writer) error { return describeBackup(m).Write(w) })
}

func describeBackup(m backup.Manifest) *table.Table {
	t := table.New()
	t.Row("Network", m.Network)
	t.Row("Gateway", m.Node)
	t.Row("Made", m.Created.Local().Format(time.DateTime)+" by release "+m.MadeBy.Version)
	with := "no"
	if m.Telemetry {
		with = "yes"
	}
	t.Row("Telemetry", with)
	t.Row("Epoch", fmt.Sprint(m.Epoch))
	return t
}

func (a *app) restoreCommand() *cobra.Command {
	var codeFile, passphraseFile string
	var yes bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "make a fresh gateway the one that a backup is of", Args: cobra.ExactArgs(1), Long: restoreLong,
		Example: "  haloctl restore north-ridge.age --gateway https://192.0.2.7:8443",
		RunE: func(c *cobra.Command, args []string) error {
			if a.env.Console != "" {
				return &usageError{errors.New("a console has no files; do this from a laptop")}
			}
			return a.restore(c.Context(), args[0], passphraseFile, codeFile, yes)
		},
	}
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`file` that holds the passphrase (or "+envPassphrase+")")
	c.Flags().StringVar(&codeFile, "code-file", "", "`file` that holds the claim code (or "+envClaimCode+")")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) restore(ctx context.Context, path, passphraseFile, codeFile string, yes bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	phrase, err := a.secret(ctx, "Passphrase of the backup", passphraseFile, envPassphrase)
	if err != nil {
		return err
	}
	m, ca, err := openBackup(ctx, f, phrase)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	t, err := a.target()
	if err != nil {
		return err
	}
	if !a.json {
		if err := describeBackup(m).Write(a.env.Stdout); err != nil {
			return err
		}
	}
	if !yes {
		if err := a.confirm(ctx, fmt.Sprintf("Is the device at %s to become this gateway, and every other card of it to be refused from then on?", t.base)); err != nil {
			return err
		}
	}
	done, err := a.handOver(ctx, t, phrase, codeFile, f)
	if err != nil {
		return err
	}
	if err := a.remember(t, m, ca); err != nil {
		return err
	}
	if a.json {
		return a.show(done, nil)
	}
	a.say("It restarts as %s, with epoch %d or higher.", done.Node, done.Epoch)
	if t.base.Scheme == "https" {
		a.awaitRestored(ctx, t, ca)
	}
	a.say("Next: haloctl login")
	return nil
}

// handOver gives the file to a gateway: by its claim code, or as its admin.
func (a *app) handOver(ctx context.Context, t target, phrase, codeFile string, file io.Reader) (apitype.Restored, error) {
	asked := t
	asked.ca = nil // a fresh card where the lost one was has a CA of its own; its claim code proves it
	open, err := openTo(ctx, asked)
	if err != nil {
		return apitype.Restored{}, err
	}
	capable, err := open.Capabilities(ctx)
	open.Close()
	if err != nil {
		return apitype.Restored{}, err
	}
	if capable.Claimed {
		c, err := a.connect()
		if err != nil {
			return apitype.Restored{}, err
		}
		defer c.Close()
		return c.Restore(ctx, phrase, file)
	}
	code, err := a.secret(ctx, "Claim code of the fresh gateway", codeFile, envClaimCode)
	if err != nil {
		return apitype.Restored{}, err
	}
	r, err := client.ClaimForRestore(ctx, t.base, code)
	if err != nil {
		if errors.Is(err, client.ErrClaimProof) {
			err = &hintError{err, "the code is on the gateway's console and in claim.txt on its boot partition"}
		}
		return apitype.Restored{}, err
	}
	defer r.Close()
	return r.Restore(ctx, phrase, file)
}

// remember has later commands know the gateway by the CA that was in the backup.
func (a *app) remember(t target, m backup.Manifest, ca *x509.Certificate) error {
	p := profile.Profile{Network: m.Network, NetworkKey: m.NetworkKey, Gateway: t.base.String()}
	if t.base.Scheme == "https" {
		p.CA = client.EncodeCA(ca)
	}
	path := a.config
	if path == "" {
		path = a.env.Profiles.PathFor(p)
	}
	if old, err := profile.Load(path); err == nil {
		p.Username = old.Username
	}
	return p.Save(path)
}

const (
	restoredWait  = 5 * time.Minute // for a board that restarts
	restoredEvery = 3 * time.Second
)

// awaitRestored waits until the gateway of the backup answers: its CA tells it from what
// the device was before. That it takes too long is no failure of the restore.
func (a *app) awaitRestored(ctx context.Context, t target, ca *x509.Certificate) {
	ctx, cancel := context.WithTimeout(ctx, restoredWait)
	defer cancel()
	c, err := client.New(t.base, ca, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		c.Close() // or the connection to the former would be asked again
		if r, err := c.Health(ctx); err == nil && r.State != health.Starting {
			a.say("It is there.")
			return
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(a.env.Stderr, "It does not answer yet; a new card may have been given another address.")
			return
		case <-time.After(restoredEvery):
		}
	}
}
