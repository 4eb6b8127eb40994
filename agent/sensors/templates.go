package sensors

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/drivers/i2c"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// template is one of people's.
type template struct {
	digest  string     // of the file's text
	problem string     // why the file is not what is used
	driver  i2c.Driver // the last good one of that name; nil: there was none
}

const suffix = ".toml"

// loadTemplates looks at the files of people's, and tells whether any is another than
// before. A bad one is an event, once, and disturbs nobody: what was good of that name
// stays in use.
func (m *Manager) loadTemplates() (news bool) {
	m.loading.Lock() // or what one has read could take the place of what another has read since
	defer m.loading.Unlock()
	files, err := readTemplates(m.Templates)
	if err != nil {
		m.mu.Lock()
		first := m.drivers == nil
		if first {
			m.drivers = driversOf(nil)
		}
		m.mu.Unlock()
		if first { // else it is told each time
			m.Log.Warn("people's I2C templates can't be read", "err", err)
		}
		return false
	}
	m.mu.Lock()
	old := m.templates
	m.mu.Unlock()
	now := map[string]template{}
	var events []func()
	for name, text := range files {
		was, known := old[name]
		digest := i2c.Digest(text)
		if known && was.digest == digest {
			now[name] = was
			continue
		}
		news = true
		t, err := i2c.Parse(name+suffix, text)
		fields := map[string]string{"template": name}
		if err != nil {
			first, _, _ := strings.Cut(err.Error(), "\n")
			now[name] = template{digest: digest, problem: first, driver: was.driver}
			fields["error"] = first
			events = append(events, func() {
				m.Event(EventBad, model.Warning, "an I2C template is wrong and is left out: "+first, fields)
			})
			continue
		}
		now[name] = template{digest: digest, driver: t}
		events = append(events, func() { m.Event(EventLoaded, model.Info, "an I2C template is in use", fields) })
	}
	news = news || len(now) != len(old)
	m.mu.Lock()
	first := m.drivers == nil
	if news || first {
		m.templates = now
		m.drivers = driversOf(now)
	}
	m.mu.Unlock()
	for _, tell := range events {
		tell()
	}
	if news {
		m.changed()
	}
	return news
}

// driversOf are the built-in ones, with people's in the place of those of the same name.
func driversOf(mine map[string]template) []i2c.Driver {
	list := slices.Clone(i2c.Builtin())
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		d := mine[name].driver
		if d == nil {
			continue
		}
		list = slices.DeleteFunc(list, func(o i2c.Driver) bool { return o.Spec().Name == d.Spec().Name })
		list = append(list, d)
	}
	return list
}

// readTemplates reads the files, by name without suffix.
func readTemplates(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !e.Type().IsRegular() || !model.TemplateForm.MatchString(name) || len(files) >= model.MaxTemplates {
			continue
		}
		text, err := readBounded(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed just now
		}
		if err != nil {
			return nil, err
		}
		files[name] = text
	}
	return files, nil
}

// readBounded reads one octet more than a template may have, so that too many are seen.
func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, i2c.MaxTemplate+1))
}

// PutTemplate keeps a template of people's, which is in use from then on.
func (m *Manager) PutTemplate(name string, text []byte) error {
	if _, err := i2c.Parse(name+suffix, text); err != nil {
		return refuse("%v", err)
	}
	m.mu.Lock()
	_, known := m.templates[name]
	n := len(m.templates)
	m.mu.Unlock()
	if !known && n >= model.MaxTemplates {
		return refuse("expected at most %d templates besides those of the release", model.MaxTemplates)
	}
	if err := os.MkdirAll(m.Templates, 0o755); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(m.Templates, name+suffix), text, 0o644); err != nil {
		return err
	}
	m.loadTemplates()
	m.Rescan()
	return nil
}

// DeleteTemplate removes one, which need not be there.
func (m *Manager) DeleteTemplate(name string) error {
	err := os.Remove(filepath.Join(m.Templates, name+suffix))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.loadTemplates()
	m.Rescan()
	return nil
}
