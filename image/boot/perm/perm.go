// Package perm brings up the data partition, whatever has become of it. It
// mounts it, which replays the journal, and lets it grow to the card. When it
// cannot be mounted, what is readable is saved, the file system is made anew
// from a template and filled again. When even that fails, /perm lives in RAM:
// the node works, keeps nothing, and says so.
package perm

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"halo.internal/model"
)

// Volume is the data partition and where it goes.
type Volume struct {
	Device   string // node of the partition
	Size     int64  // of the partition, octets
	Target   string // where to mount
	Scratch  string // an empty directory to mount a damaged one on
	Template string // gzip'd file system to make it anew from
	SaveMax  int64  // octets that may be saved in RAM
	Log      *slog.Logger

	// Forgotten has it made anew whatever is in it, of which nothing is saved. It is called
	// when nothing of that is left, before anything new is kept: what comes then must not
	// be forgotten by another start. nil: it is mounted as it is.
	Forgotten func() error

	Superblocks superblocks // keeps a copy; nil: none is kept

	fs    filesystem
	pause func(time.Duration) // nil is time.Sleep
}

func (v Volume) wait(d time.Duration) {
	if v.pause != nil {
		v.pause(d)
		return
	}
	time.Sleep(d)
}

// filesystem is what the kernel does; a fake stands in for it in tests.
type filesystem interface {
	mount(device, target string) error
	// mountReadOnly mounts without replaying the journal; superblock is the
	// place of the superblock to believe, in KiB, 0 for the first.
	mountReadOnly(device, target string, superblock int64) error
	mountRAM(target string) error
	unmount(target string) error
	// errors returns how many errors the mounted file system remembers.
	errors(device string) (int, error)
	grow(device, target string, size int64) (bool, error)
	usage(target string) (size, free int64, readOnly bool, err error)
	// sync returns when all that was written to the file system is on the card.
	sync(target string) error
}

// backups are where ext4 of 4 KiB blocks keeps copies of its superblock, in
// KiB: in groups 1, 3 and 5, as far as a volume of size octets has them. To
// look behind the end is no damage to the kernel, but lack of memory.
func backups(size int64) []int64 {
	places := []int64{0}
	for _, group := range []int64{1, 3, 5} {
		if at := group * 128 << 10; at<<10 < size {
			places = append(places, at)
		}
	}
	return places
}

// Mount brings the volume up and reports how. It does not fail: at worst the
// report says volatile.
func (v Volume) Mount() model.PermReport {
	if v.fs == nil {
		v.fs = kernel{}
	}
	r := model.PermReport{State: model.PermOK}
	var err error
	if v.Forgotten != nil {
		if r = v.forget(); r.State == model.PermVolatile {
			return v.measure(r)
		}
	} else {
		err = v.mountPatiently()
	}
	if damaged(err) && v.Superblocks != nil {
		mended, mendErr := v.mendSuperblock()
		if mendErr != nil {
			v.Log.Warn("/perm: superblock is not mended", "err", mendErr)
		}
		if mended {
			v.Log.Warn("/perm: torn superblock was put right", "cause", err)
			err = v.mountPatiently()
		}
	}
	if err != nil {
		if r = v.renew(err); r.State == model.PermVolatile {
			return v.measure(r)
		}
	} else if v.checkErrors(&r); r.State == model.PermDamaged {
		return v.measure(r) // the kernel does not let one grow that knows of errors
	}
	grown, err := v.fs.grow(v.Device, v.Target, v.Size)
	if err != nil {
		v.Log.Error("/perm keeps its size", "err", err)
		r.Detail = join(r.Detail, err.Error())
	}
	r.Grown = grown
	if v.Superblocks != nil {
		if err := v.keepSuperblock(); err != nil {
			v.Log.Warn("/perm: no copy of the superblock is kept", "err", err)
		}
	}
	return v.measure(r)
}

// forget makes the file system anew, and saves nothing of the old one. Where it cannot,
// nothing is kept until another start can: what was is not believed any more.
func (v Volume) forget() model.PermReport {
	err := v.forgetSuperblocks()
	if err == nil {
		err = v.writeTemplate()
	}
	if err == nil {
		err = v.Forgotten()
	}
	if err == nil {
		err = v.fs.mount(v.Device, v.Target)
	}
	if err == nil {
		return model.PermReport{State: model.PermRemade, Detail: "factory reset"}
	}
	v.Log.Error("/perm cannot be made anew: nothing will be kept", "err", err)
	return model.PermReport{State: model.PermVolatile, Detail: errors.Join(fmt.Errorf("factory reset: %w", err), v.fs.mountRAM(v.Target)).Error()}
}

// forgetSuperblocks takes away what would lead to the old file system behind the end of
// the template, or put its superblock in the place of the new one.
func (v Volume) forgetSuperblocks() (err error) {
	if v.Superblocks != nil {
		if err := v.Superblocks.Store(nil); err != nil {
			return err
		}
	}
	d, err := os.OpenFile(v.Device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for _, kib := range backups(v.Size)[1:] {
		if _, err := d.WriteAt(make([]byte, len(superblock{})), kib<<10); err != nil {
			return fmt.Errorf("superblock at %d KiB: %w", kib, err)
		}
	}
	return d.Sync()
}

// mountTries and mountPause bound how long a card that fails to read is asked
// again: cheap ones fail now and then just after power came.
const (
	mountTries = 5
	mountPause = 500 * time.Millisecond
)

func (v Volume) mountPatiently() (err error) {
	for try := range mountTries {
		if try > 0 {
			v.wait(mountPause)
		}
		if err = v.fs.mount(v.Device, v.Target); !errors.Is(err, syscall.EIO) {
			return err
		}
		v.Log.Warn("/perm cannot be read, once more", "try", try+1, "err", err)
	}
	return err
}

// damaged tells whether an error speaks of the file system on the card: a bad
// superblock (EINVAL), structure (EUCLEAN) or checksum (EBADMSG), or octets that
// cannot be read for good (EIO). Any other is the machine's trouble: memory, a
// missing module, a busy device. A volume is never overwritten for that.
func damaged(err error) bool {
	for _, e := range []error{syscall.EINVAL, syscall.EUCLEAN, syscall.EBADMSG, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// renew makes a file system anew that cannot be mounted because it is damaged,
// and puts back what could be saved; where that fails, or where the trouble is
// not the file system's, RAM takes its place and the card stays as it is.
//
// Once the template is written, the only copy of what was saved is in RAM until
// restore has synced it. A power cut in these seconds loses it: a node's spool,
// a gateway's users, CA and telemetry. Identity, bundle, membership and clock
// have their second copies in the vault. There is nowhere else to keep the
// rest, and without a remake nothing could be kept from then on.
func (v Volume) renew(cause error) model.PermReport {
	s, unread := v.salvage()
	if len(s.files) == 0 && v.blank() {
		// Plain gok leaves the partition empty: there was nothing to lose.
		cause, s = errors.New("partition was empty"), saved{}
	} else if !damaged(cause) || unread != nil && !damaged(unread) {
		return v.leave(cause, s)
	}
	v.Log.Warn("/perm is made anew", "cause", cause, "saved", s.summary())
	err := v.remake()
	if err != nil {
		v.Log.Error("/perm cannot be made anew: nothing will be kept", "err", err)
		if ram := v.fs.mountRAM(v.Target); ram != nil {
			err = errors.Join(err, ram)
		}
	}
	s.restore(v.Target, v.fs.sync)
	if err != nil {
		return model.PermReport{State: model.PermVolatile, Detail: errors.Join(cause, err).Error(), Lost: s.lost}
	}
	return model.PermReport{State: model.PermRemade, Detail: fmt.Sprintf("%v; made anew, %s", cause, s.summary()), Lost: s.lost}
}

// leave puts what could be read into RAM and touches nothing on the card: the
// next start may find it well.
func (v Volume) leave(cause error, s saved) model.PermReport {
	v.Log.Error("/perm cannot be mounted and is left alone: nothing will be kept", "err", cause, "copied", s.summary())
	err := v.fs.mountRAM(v.Target)
	s.restore(v.Target, v.fs.sync)
	return model.PermReport{State: model.PermVolatile, Detail: errors.Join(cause, err).Error()}
}

// blank tells whether the beginning of the volume was never written.
func (v Volume) blank() bool {
	f, err := os.Open(v.Device)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, min(v.Size, 1<<20))
	_, err = io.ReadFull(f, b)
	return err == nil && len(bytes.Trim(b, "\x00")) == 0
}

// checkErrors looks whether a file system that could be mounted knows of
// errors in itself. The appliance has no fsck, and making it anew would put its
// files at the mercy of a power cut: it stays, and says so.
func (v Volume) checkErrors(r *model.PermReport) {
	n, err := v.fs.errors(v.Device)
	if err != nil || n == 0 {
		return // one that cannot say is taken as good
	}
	r.State, r.Detail = model.PermDamaged, fmt.Sprintf("ext4 remembers %d errors", n)
	v.Log.Error("/perm is damaged and stays in use", "detail", r.Detail)
}

// salvage reads what it can from a volume that is not mounted. Where no
// superblock leads to anything, it returns the error that matters most: one that
// is not the file system's, if there was one.
func (v Volume) salvage() (saved, error) {
	var errs []error
	for _, superblock := range backups(v.Size) {
		err := v.fs.mountReadOnly(v.Device, v.Scratch, superblock)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s := save(v.Scratch, v.SaveMax)
		if err := v.fs.unmount(v.Scratch); err != nil {
			v.Log.Error("/perm: the damaged one stays mounted", "err", err)
		}
		return s, nil
	}
	v.Log.Warn("nothing can be read from /perm", "err", errors.Join(errs...))
	for _, err := range errs {
		if !damaged(err) {
			return saved{lost: []string{"."}}, err
		}
	}
	return saved{lost: []string{"."}}, errs[0]
}

// remake writes the template and mounts it.
func (v Volume) remake() error {
	if err := v.writeTemplate(); err != nil {
		return err
	}
	return v.fs.mount(v.Device, v.Target)
}

func (v Volume) writeTemplate() (err error) {
	t, err := os.Open(v.Template)
	if err != nil {
		return fmt.Errorf("template: %w", err)
	}
	defer t.Close()
	z, err := gzip.NewReader(t)
	if err != nil {
		return fmt.Errorf("template: %w", err)
	}
	d, err := os.OpenFile(v.Device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	n, err := io.Copy(d, io.LimitReader(z, v.Size+1))
	if err != nil {
		return fmt.Errorf("write template: %w", err)
	}
	if n > v.Size {
		return fmt.Errorf("write template: expected at most %d octets, the size of the partition", v.Size)
	}
	return d.Sync()
}

// measure fills in sizes.
func (v Volume) measure(r model.PermReport) model.PermReport {
	size, free, readOnly, err := v.fs.usage(v.Target)
	if err != nil {
		r.Detail = join(r.Detail, err.Error())
		return r
	}
	return Update(r, size, free, readOnly)
}

// minFree is what must be free for the small files to be written.
const minFree = 1 << 20

// Update returns the report with what was measured just now. What was found at
// the start outlives a time without room.
func Update(r model.PermReport, size, free int64, readOnly bool) model.PermReport {
	r.Size, r.Free = size, free
	switch {
	case r.State == model.PermVolatile:
	case readOnly:
		r.State = model.PermReadOnly
	case free < minFree && r.State != model.PermFull:
		r.State, r.Before = model.PermFull, r.State
	case free >= minFree && r.State == model.PermFull:
		r.State, r.Before = r.Before, "" // somebody made room
	}
	return r
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
