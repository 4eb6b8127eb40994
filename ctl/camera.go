package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

const cameraLong = `Camera shows what is plugged in at nodes. A camera runs while somebody looks, and
its pictures come through the mesh once, however many look. Its settings fps and
kbit_s bound what it sends.

CAMERA may be left out where a node has one.`

const cameraSetLong = `Set changes settings of a camera, all that are named: enabled (true or false),
width and height (0 and 0: the largest up to 640x480), fps, kbit_s, quality (of
JPEG, where the camera does not make that itself), and its controls, such as
control.brightness; control.brightness= is as the camera has it.`

func (a *app) cameraCommand() *cobra.Command {
	var node string
	list := a.call("list", "cameras that are plugged in at nodes", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		list, err := c.Cameras(ctx, node)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		nodes, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[apitype.NodeCamera]{list}, func(w io.Writer) error {
			t := table.New("NODE", "CAMERA", "NAME", "ONLINE")
			for _, k := range list {
				t.Row(nameOf(nodes, k.Node), k.ID, k.Name, k.Online)
			}
			return t.Write(w)
		})
	})
	list.Flags().StringVar(&node, "node", "", "only those of this `node`")
	var hold time.Duration
	start := a.ofCamera("start NODE [CAMERA]", "have a camera run for a while, so that pictures come at once", func(ctx context.Context, c *client.Client, node, camera string) error {
		if hold < time.Second || hold%time.Second != 0 {
			return &usageError{fmt.Errorf("--for: expected whole seconds, 1s to %ds, got %s", model.MaxCameraHoldS, hold)}
		}
		return a.tellCamera(c.StartCamera(ctx, node, camera, model.CameraStart{HoldS: int(hold / time.Second)}))
	})
	start.Flags().DurationVar(&hold, "for", model.DefaultCameraHoldS*time.Second, "how long, at most ten minutes")
	var out string
	snapshot := a.ofCamera("snapshot NODE [CAMERA]", "a picture, as JPEG", func(ctx context.Context, c *client.Client, node, camera string) error {
		return a.cameraSnapshot(ctx, c, node, camera, out)
	})
	snapshot.Flags().StringVar(&out, "out", "", "`file` to write, readable by you alone; - for standard output")
	var still bool
	link := a.ofCamera("link NODE [CAMERA]", "a link that shows a camera without a login, to be opened within a minute", func(ctx context.Context, c *client.Client, node, camera string) error {
		q := apitype.CreateCameraLink{Kind: apitype.CameraStream, ExpiresS: apitype.MaxCameraLinkS}
		if still {
			q.Kind = apitype.CameraSnapshot
		}
		l, at, err := c.CameraLink(ctx, node, camera, q)
		if err != nil {
			return err
		}
		return a.show(struct {
			apitype.CameraLink
			URL string `json:"url"`
		}{l, at}, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, at)
			return err
		})
	})
	link.Flags().BoolVar(&still, "snapshot", false, "to one picture")
	link.Long = `Link prints a link for a browser or a player. Whoever has it sees the camera: it can
be opened for a minute, and what it shows ends with your login.`
	return a.cameraGroup(list, start, snapshot, link)
}

func (a *app) cameraGroup(commands ...*cobra.Command) *cobra.Command {
	set := a.ofNode("set NODE [CAMERA] NAME=VALUE…", "change settings; they hold at once", cobra.MinimumNArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
		camera, changes := "", args[1:]
		if !strings.Contains(args[1], "=") {
			camera, changes = args[1], args[2:]
		}
		camera, err := a.camera(ctx, c, args[0], camera)
		if err != nil {
			return err
		}
		now, err := c.Camera(ctx, args[0], camera)
		if err != nil {
			return err
		}
		u, err := cameraChanges(changes, now.Settings)
		if err != nil {
			return err
		}
		return a.tellCamera(c.UpdateCamera(ctx, args[0], camera, u))
	})
	set.Long = cameraSetLong
	set.Example = "  haloctl camera set mast fps=2 kbit_s=100 control.brightness=140"
	g := group("camera", "cameras at nodes", append(commands,
		a.ofNode("detect NODE", "have a node look which cameras are plugged in", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			list, err := c.DetectCameras(ctx, args[0])
			if err != nil {
				return notFound(err, "haloctl node list shows the nodes")
			}
			return a.show(items[model.Camera]{list}, func(w io.Writer) error {
				t := table.New("CAMERA", "NAME", "DRIVER", "STATE", "VIEWERS")
				for _, k := range list {
					t.Row(k.ID, k.Name, k.Driver, string(k.State), k.Viewers)
				}
				return t.Write(w)
			})
		}),
		a.ofCamera("show NODE [CAMERA]", "how a camera is, what it offers, and its settings", func(ctx context.Context, c *client.Client, node, camera string) error {
			return a.tellCamera(c.Camera(ctx, node, camera))
		}),
		a.ofCamera("stop NODE [CAMERA]", "end a camera's pictures for all that look", func(ctx context.Context, c *client.Client, node, camera string) error {
			return a.tellCamera(c.StopCamera(ctx, node, camera))
		}),
		set)...)
	g.Long = cameraLong
	return g
}

// ofCamera is a command for a camera of a node.
func (a *app) ofCamera(use, short string, run func(ctx context.Context, c *client.Client, node, camera string) error) *cobra.Command {
	return a.ofNode(use, short, cobra.RangeArgs(1, 2), func(ctx context.Context, c *client.Client, args []string) error {
		camera, err := a.camera(ctx, c, args[0], strings.Join(args[1:], ""))
		if err != nil {
			return err
		}
		return notFound(run(ctx, c, args[0], camera), "haloctl camera list shows the cameras")
	})
}

// camera returns the one that is named, or the only one of a node.
func (a *app) camera(ctx context.Context, c *client.Client, node, camera string) (string, error) {
	if camera != "" {
		return camera, nil
	}
	list, err := c.Cameras(ctx, node)
	if err != nil {
		return "", notFound(err, "haloctl node list shows the nodes")
	}
	if len(list) != 1 {
		var ids []string
		for _, k := range list {
			ids = append(ids, k.ID)
		}
		return "", &usageError{fmt.Errorf("CAMERA: expected one of the %d cameras of %s: %s", len(list), node, table.Clean(strings.Join(ids, " ")))}
	}
	return list[0].ID, nil
}

func (a *app) cameraSnapshot(ctx context.Context, c *client.Client, node, camera, out string) error {
	if out == "" {
		return &usageError{errors.New("--out: expected a file for the picture, or - for standard output")}
	}
	var b bytes.Buffer // whole, so that what fails leaves no half a file
	if err := c.CameraSnapshot(ctx, node, camera, &b); err != nil {
		return err
	}
	if out == "-" {
		_, err := a.env.Stdout.Write(b.Bytes())
		return err
	}
	if err := atomicfile.Write(out, b.Bytes(), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(a.env.Stderr, "Wrote %s: %s.\n", out, table.Bytes(int64(b.Len())))
	return nil
}

// tellCamera tells how a camera is.
func (a *app) tellCamera(k model.Camera, err error) error {
	if err != nil {
		return err
	}
	return a.show(k, func(w io.Writer) error {
		t := table.New()
		t.Row("Camera", k.ID)
		t.Row("Name", k.Name)
		t.Row("Driver", strings.TrimSpace(k.Driver+" "+k.Product))
		t.Row("State", strings.TrimSpace(string(k.State)+" "+k.Detail))
		t.Row("Viewers", strconv.Itoa(k.Viewers))
		if k.Capture != nil {
			t.Row("Makes", fmt.Sprintf("%s %dx%d", k.Capture.Format, k.Capture.Width, k.Capture.Height))
		}
		n := k.Counters
		t.Row("Pictures", fmt.Sprintf("%d, %s; dropped: %d cut off, %d broken, %d not taken in time", n.Frames, table.Bytes(int64(n.Bytes)), n.Truncated, n.Invalid, n.Missed))
		sets := table.New("SETTING", "VALUE", "MEANS")
		s := k.Settings
		sets.Row("enabled", strconv.FormatBool(s.Enabled), "it may be looked at")
		sets.Row("width, height", fmt.Sprintf("%dx%d", s.Width, s.Height), "0x0: the largest up to 640x480")
		sets.Row("fps", fmt.Sprint(s.FPS), "frames a second at most")
		sets.Row("kbit_s", fmt.Sprint(s.KbitS), "into the mesh at most")
		sets.Row("quality", fmt.Sprint(s.Quality), "of JPEG that is made of raw pictures")
		for _, c := range k.Controls {
			v, set := s.Controls[c.Name]
			if !set {
				v = c.Default
			}
			sets.Row("control."+c.Name, fmt.Sprint(v), fmt.Sprintf("%d to %d", c.Min, c.Max))
		}
		modes := table.New("FORMAT", "SIZES")
		for _, m := range k.Modes {
			if !m.Usable {
				continue
			}
			var sizes []string
			for _, z := range m.Sizes {
				sizes = append(sizes, fmt.Sprintf("%dx%d", z.Width, z.Height))
			}
			modes.Row(m.Format, strings.Join(sizes, " "))
		}
		return writeTables(w, []section{{1, t}, {1, sets}, {len(k.Modes), modes}})
	})
}

// cameraChanges reads settings as a person writes them.
func cameraChanges(args []string, now model.CameraSettings) (u apitype.UpdateCamera, err error) {
	controls := map[string]int64{}
	for name, v := range now.Controls {
		controls[name] = v
	}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if control, is := strings.CutPrefix(name, "control."); is && ok && control != "" {
			if u.Controls = &controls; text == "" {
				delete(controls, control)
				continue
			}
			v, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return u, &usageError{fmt.Errorf("%s: expected a whole number, got %q", name, text)}
			}
			controls[control] = v
			continue
		}
		whole := map[string]**int{"width": &u.Width, "height": &u.Height, "kbit_s": &u.KbitS, "quality": &u.Quality}
		switch to := whole[name]; {
		case ok && to != nil:
			var v int
			v, err = strconv.Atoi(text)
			*to = &v
		case ok && name == "fps":
			var v float64
			v, err = strconv.ParseFloat(text, 64)
			u.FPS = &v
		case ok && name == "enabled":
			var v bool
			v, err = strconv.ParseBool(text)
			u.Enabled = &v
		default:
			names := []string{"enabled", "fps"}
			for n := range whole {
				names = append(names, n)
			}
			slices.Sort(names)
			return u, &usageError{fmt.Errorf("expected NAME=VALUE with one of the names %s or control.NAME, got %q", strings.Join(names, ", "), arg)}
		}
		if err != nil {
			return u, &usageError{fmt.Errorf("%s: expected a number, or true or false, got %q", name, text)}
		}
	}
	next := u.Apply(now)
	if err := next.Check(); err != nil {
		return u, &usageError{err}
	}
	return u, nil
}
