package v4l2

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Control is something of a camera that can be set, such as its brightness.
type Control struct {
	Name     string // the driver's, in small letters with underscores
	Kind     string // integer, boolean or menu
	Min, Max int64
	Step     int64
	Default  int64
	Value    int64
	Menu     map[int64]string // of a menu: what there is to choose
	Inactive bool             // another control decides at present

	id uint32
}

// controlsTime bounds how long controls are asked for. A camera that hangs has the
// kernel wait five seconds for each answer.
const controlsTime = 10 * time.Second

// Controls returns what can be set and read: whole numbers, switches and menus. With an
// error it returns those that were found before it.
func (d *Device) Controls() (list []Control, err error) {
	id := uint32(ctrlNext)
	begin := time.Now()
	for range 4 * maxControls { // others and classes count too
		if took := time.Since(begin); took > controlsTime {
			return list, fmt.Errorf("controls: expected answers within %s, and there were %d in %s", controlsTime, len(list), took.Round(time.Second))
		}
		q := queryctrl{id: id}
		if err := ioctl(d.fd, "VIDIOC_QUERYCTRL", vidiocQueryctrl, &q); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
			break
		} else if err != nil {
			return list, err
		}
		if q.id <= id&^ctrlNext {
			break // a driver that does not go on
		}
		id = q.id | ctrlNext
		c, ok := d.control(q)
		if !ok {
			continue
		}
		if list = append(list, c); len(list) == maxControls {
			break
		}
	}
	return list, nil
}

func (d *Device) control(q queryctrl) (c Control, ok bool) {
	if q.flags&(ctrlDisabled|ctrlReadOnly|ctrlWriteOnly) != 0 || q.maximum < q.minimum {
		return c, false
	}
	c = Control{
		Name: ControlName(text(q.name[:])), Min: int64(q.minimum), Max: int64(q.maximum), Step: max(int64(q.step), 1), Default: int64(q.standard),
		Inactive: q.flags&ctrlInactive != 0, id: q.id,
	}
	switch q.kind {
	case ctrlInteger:
		c.Kind = "integer"
	case ctrlBoolean:
		c.Kind, c.Min, c.Max, c.Step = "boolean", 0, 1, 1
	case ctrlMenu, ctrlIntegerMenu:
		c.Kind, c.Menu = "menu", d.menu(q)
	default:
		return c, false
	}
	v := control{id: q.id}
	if c.Name == "" || ioctl(d.fd, "VIDIOC_G_CTRL", vidiocGCtrl, &v) != nil {
		return c, false // what cannot be read cannot be put back
	}
	c.Value = int64(v.value)
	return c, true
}

func (d *Device) menu(q queryctrl) map[int64]string {
	items := map[int64]string{}
	for i := int64(max(q.minimum, 0)); i <= int64(q.maximum) && i < int64(max(q.minimum, 0))+maxMenu; i++ {
		m := querymenu{id: q.id, index: uint32(i)}
		if ioctl(d.fd, "VIDIOC_QUERYMENU", vidiocQuerymenu, &m) != nil {
			continue // menus have gaps
		}
		items[i] = text(m.name[:])
		if q.kind == ctrlIntegerMenu {
			var v int64
			for k, b := range m.name[:8] {
				v |= int64(b) << (8 * k)
			}
			items[i] = fmt.Sprint(v)
		}
	}
	return items
}

// ControlName returns a driver's name of a control as it is used here: small letters
// and digits, and one underscore for whatever is between.
func ControlName(name string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(name) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte('_')
		}
		gap = false
		b.WriteRune(r)
	}
	return b.String()
}

// Check tells whether the control takes a value, and if not, which it takes.
func (c Control) Check(v int64) error {
	if c.Kind == "menu" {
		if _, ok := c.Menu[v]; !ok {
			return fmt.Errorf("control %s: expected one of the menu %v, got %d", c.Name, c.Menu, v)
		}
		return nil
	}
	if v < c.Min || v > c.Max || (v-c.Min)%c.Step != 0 {
		return fmt.Errorf("control %s: expected %d to %d in steps of %d, got %d", c.Name, c.Min, c.Max, c.Step, v)
	}
	return nil
}

// Set sets a control of Controls.
func (d *Device) Set(c Control, v int64) error {
	if err := c.Check(v); err != nil {
		return err
	}
	if err := ioctl(d.fd, "VIDIOC_S_CTRL", vidiocSCtrl, &control{id: c.id, value: int32(v)}); err != nil {
		return fmt.Errorf("control %s: %w", c.Name, err)
	}
	return nil
}
