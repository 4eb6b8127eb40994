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

	fs filesystem
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
}

// backups are where ext4 of 4 KiB blocks keeps copies of its superblock, in
// KiB: in groups 1, 3 and 5.
func backups() []int64 { return []int64{0, 128 << 10, 3 * 128 << 10, 5 * 128 << 10} }

// Mount brings the volume up and reports how. It does not fail: at worst the
// report says volatile.
func (v Volume) Mount() model.PermReport {
	if v.fs == nil {
		v.fs = kernel{}
	}
	r := model.PermReport{State: model.PermOK}
	err := v.fs.mount(v.Device, v.Target)
	if err == nil {
		err = v.checkErrors(&r)
	}
	if err != nil {
		if r = v.renew(err); r.State == model.PermVolatile {
			return v.measure(r)
		}
	}
	grown, err := v.fs.grow(v.Device, v.Target, v.Size)
	if err != nil {
		v.Log.Error("/perm keeps its size", "err", err)
		r.Detail = join(r.Detail, err.Error())
	}
	r.Grown = grown
	return v.measure(r)
}

// renew makes a file system that cannot be used anew and puts back what could
// be saved; where that fails, RAM takes its place.
func (v Volume) renew(cause error) model.PermReport {
	s := v.salvage()
	if len(s.files) == 0 && v.blank() {
		// Plain gok leaves the partition empty: there was nothing to lose.
		cause, s = errors.New("partition was empty"), saved{}
	}
	v.Log.Warn("/perm is made anew", "cause", cause, "saved", s.summary())
	err := v.remake()
	if err != nil {
		v.Log.Error("/perm cannot be made anew: nothing will be kept", "err", err)
		if ram := v.fs.mountRAM(v.Target); ram != nil {
			err = errors.Join(err, ram)
		}
	}
	s.restore(v.Target)
	if err != nil {
		return model.PermReport{State: model.PermVolatile, Detail: errors.Join(cause, err).Error(), Lost: s.lost}
	}
	return model.PermReport{State: model.PermRemade, Detail: fmt.Sprintf("%v; made anew, %s", cause, s.summary()), Lost: s.lost}
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
// errors in itself. The appliance has no fsck: if all of it can be read and
// kept meanwhile, it is better made anew; if not, it stays, and says so.
func (v Volume) checkErrors(r *model.PermReport) error {
	n, err := v.fs.errors(v.Device)
	if err != nil || n == 0 {
		return nil // one that cannot say is taken as good
	}
	damaged := fmt.Errorf("ext4 remembers %d errors", n)
	if s := save(v.Target, v.SaveMax); len(s.lost) > 0 {
		r.State, r.Detail = model.PermDamaged, damaged.Error()
		v.Log.Error("/perm is damaged", "err", damaged)
		return nil
	}
	if err := v.fs.unmount(v.Target); err != nil {
		r.State, r.Detail = model.PermDamaged, damaged.Error()
		return nil
	}
	return damaged
}

// salvage reads what it can from a volume that is not mounted.
func (v Volume) salvage() saved {
	var errs []error
	for _, superblock := range backups() {
		err := v.fs.mountReadOnly(v.Device, v.Scratch, superblock)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s := save(v.Scratch, v.SaveMax)
		if err := v.fs.unmount(v.Scratch); err != nil {
			v.Log.Error("/perm: the damaged one stays mounted", "err", err)
		}
		return s
	}
	v.Log.Warn("nothing can be read from /perm", "err", errors.Join(errs...))
	return saved{lost: []string{"."}}
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

// Update returns the report with what was measured just now.
func Update(r model.PermReport, size, free int64, readOnly bool) model.PermReport {
	r.Size, r.Free = size, free
	switch {
	case r.State == model.PermVolatile:
	case readOnly:
		r.State = model.PermReadOnly
	case free < minFree:
		r.State = model.PermFull
	case r.State == model.PermFull:
		r.State = model.PermOK // somebody made room
	}
	return r
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
