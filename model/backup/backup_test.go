package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"

	"halo.internal/model/version"
)

const passphrase = "a horse that is correct"

var manifest = Manifest{ID: "i", Created: time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC), MadeBy: version.Info{Version: "v7"}, Network: "north-ridge", Node: "n-a", Epoch: 7}

// parts of a backup: small ones, an empty one, and one that takes several of age's chunks.
var parts = map[string][]byte{Epoch: []byte("7"), Reservations: {}, Config: bytes.Repeat([]byte("SQLite format 3\x00"), 20_000), CAKey: []byte("a key")}

func write(t testing.TB, m Manifest, parts map[string][]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	m.Format = Format
	w, err := newWriter(&file, passphrase, 4, m) // as fast as it can be
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if err := w.AddBytes(name, parts[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// read returns the parts only when all were there.
func read(r io.Reader, phrase string) (Manifest, map[string][]byte, error) {
	b, err := Open(r, phrase)
	if err != nil {
		return Manifest{}, nil, err
	}
	got := map[string]*bytes.Buffer{}
	err = b.Parts(func(name string) (io.Writer, int64, error) {
		got[name] = &bytes.Buffer{}
		return got[name], 1 << 20, nil
	})
	if err != nil {
		return b.Manifest, nil, err
	}
	out := map[string][]byte{}
	for name, c := range got {
		out[name] = c.Bytes()
	}
	return b.Manifest, out, nil
}

func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

func TestWhatIsWrittenIsRead(t *testing.T) {
	file := write(t, manifest, parts)
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(file), "by octets": iotest.OneByteReader(bytes.NewReader(file))} {
		m, got, err := read(r, passphrase)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := manifest
		want.Format = Format
		if m != want || !same(got, parts) {
			t.Errorf("%s: got %+v and %d parts", name, m, len(got))
		}
	}
	if bytes.Contains(file, []byte("a key")) || bytes.Contains(file, []byte("north-ridge")) {
		t.Error("it can be read without a passphrase")
	}
}

// With nothing of HALO at hand: age's own library, and tar.
func TestOthersCanOpenIt(t *testing.T) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(write(t, manifest, parts)), id)
	if err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", "-xzO", CAKey)
	tar.Stdin = r
	if out, err := tar.CombinedOutput(); err != nil || string(out) != "a key" {
		t.Errorf("tar says %q, %v", out, err)
	}
}

func TestWhatIsNoBackup(t *testing.T) {
	file := write(t, manifest, parts)
	armoured := append([]byte("-----BEGIN AGE ENCRYPTED FILE-----\n"), file...)
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var toKey bytes.Buffer
	w, err := age.Encrypt(&toKey, other.Recipient())
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	encrypt := func(text string) []byte {
		var b bytes.Buffer
		r, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			t.Fatal(err)
		}
		r.SetWorkFactor(1)
		w, err := age.Encrypt(&b, r)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	costly := bytes.Replace(file, []byte(" 4\n"), []byte(" 30\n"), 1)
	for _, tc := range []struct {
		name   string
		file   []byte
		phrase string
		want   error
	}{
		{"wrong passphrase", file, "a horse that is wrong", ErrPassphrase},
		{"no passphrase", file, "", ErrPassphrase},
		{"nothing", nil, passphrase, ErrDamaged},
		{"cut in its first line", file[:7], passphrase, ErrDamaged},
		{"something else", []byte(strings.Repeat("PK\x03\x04", 100)), passphrase, ErrNotBackup},
		{"as text", armoured, passphrase, ErrNotBackup},
		{"encrypted to a key", toKey.Bytes(), passphrase, ErrPassphrase},
		{"made to cost 8 GiB", costly, passphrase, ErrDamaged},
		{"another file of age's", encrypt("not a tar"), passphrase, ErrDamaged},
		{"something behind it", append(bytes.Clone(file), 0), passphrase, ErrDamaged},
	} {
		if _, got, err := read(bytes.NewReader(tc.file), tc.phrase); !errors.Is(err, tc.want) || got != nil {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	for format, want := range map[int]error{0: ErrNotBackup, Format + 1: ErrNewer} {
		m := manifest
		m.Format = format
		var b bytes.Buffer
		w, err := newWriter(&b, passphrase, 1, m)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := read(&b, passphrase); !errors.Is(err, want) || want == ErrNewer && !strings.Contains(err.Error(), "v7") {
			t.Errorf("format %d: got %v, want %v", format, err, want)
		}
	}
	if _, _, err := read(iotest.ErrReader(io.ErrClosedPipe), passphrase); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("where it comes from fails: got %v", err)
	}
	r := io.MultiReader(bytes.NewReader(file[:len(file)-100]), iotest.ErrReader(io.ErrClosedPipe))
	if _, _, err := read(r, passphrase); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, ErrDamaged) {
		t.Errorf("where it comes from fails in the middle: got %v", err)
	}
}

// Whatever is cut off or flipped, nothing of it counts.
func TestDamageIsSeen(t *testing.T) {
	file := write(t, manifest, map[string][]byte{Epoch: []byte("7"), Config: bytes.Repeat([]byte("ab"), 50)})
	cost := bytes.Index(file, []byte(" 4\n")) + 1
	for at := range file {
		if at == cost {
			continue // a cost that is another has another key: that is slow, and a wrong passphrase
		}
		for what, damaged := range map[string][]byte{"cut": file[:at], "flipped": flipped(file, at)} {
			_, got, err := read(bytes.NewReader(damaged), passphrase)
			if err == nil || got != nil {
				t.Fatalf("%s at %d of %d: it was read", what, at, len(file))
			}
			if body := bytes.Index(file, []byte("\n--- ")); at > body+50 && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s at %d of %d: got %v", what, at, len(file), err)
			}
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// inner is what is in a file of age's.
func inner(t testing.TB, file []byte) []byte {
	t.Helper()
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(file), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Who knows the passphrase can make a file of anything.
func TestPartsThatAreNotWhatTheyShouldBe(t *testing.T) {
	entry := func(typ byte, name, text string) func(*tar.Writer) error {
		return func(w *tar.Writer) error {
			h := tar.Header{Typeflag: typ, Name: name, Size: int64(len(text)), Mode: 0o600}
			if typ == tar.TypeSymlink {
				h.Size, h.Linkname = 0, text
			}
			err := w.WriteHeader(&h)
			if err == nil && h.Size > 0 {
				_, err = io.WriteString(w, text)
			}
			return err
		}
	}
	first := entry(tar.TypeReg, partManifest, `{"format":1}`)
	none := entry(tar.TypeReg, partSums, `{}`)
	for _, tc := range []struct {
		name    string
		entries []func(*tar.Writer) error
		want    error
	}{
		{"no manifest", []func(*tar.Writer) error{entry(tar.TypeReg, Epoch, "7")}, ErrNotBackup},
		{"a manifest that is none", []func(*tar.Writer) error{entry(tar.TypeReg, partManifest, "[]")}, ErrNotBackup},
		{"a huge manifest", []func(*tar.Writer) error{entry(tar.TypeReg, partManifest, strings.Repeat(" ", maxManifest+1))}, ErrTooLarge},
		{"a link", []func(*tar.Writer) error{first, entry(tar.TypeSymlink, Epoch, "/etc/passwd")}, ErrNotBackup},
		{"a part twice", []func(*tar.Writer) error{first, entry(tar.TypeReg, Epoch, "7"), entry(tar.TypeReg, Epoch, "8")}, ErrNotBackup},
		{"a part that is too large", []func(*tar.Writer) error{first, entry(tar.TypeReg, Epoch, strings.Repeat("7", 1<<20+1))}, ErrTooLarge},
		{"a part that nobody counted", []func(*tar.Writer) error{first, entry(tar.TypeReg, Epoch, "7"), none}, ErrDamaged},
		{"nothing counted", []func(*tar.Writer) error{first}, ErrDamaged},
		{"something after the last", []func(*tar.Writer) error{first, entry(tar.TypeReg, partSums,
			`{"manifest.json":{"size":12,"sha256":"3f0a99256beeb89a6b9f2793885291a6454928fd74903159ab2e51452b13df6f"}}`), entry(tar.TypeReg, Epoch, "7")}, ErrDamaged},
	} {
		var plain bytes.Buffer
		z := gzip.NewWriter(&plain)
		w := tar.NewWriter(z)
		for _, e := range tc.entries {
			if err := e(w); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		if err := readInner(plain.Bytes()); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

func readInner(plain []byte) error {
	b := &Reader{source: &source{}, sums: map[string]sum{}}
	if _, err := b.begin(bytes.NewReader(plain)); err != nil {
		return err
	}
	return b.Parts(func(string) (io.Writer, int64, error) { return io.Discard, 1 << 20, nil })
}

func FuzzRead(f *testing.F) {
	f.Add(inner(f, write(f, manifest, map[string][]byte{Epoch: []byte("7"), Bundle: {}})))
	f.Fuzz(func(t *testing.T, plain []byte) {
		err := readInner(plain)
		for _, known := range []error{nil, ErrDamaged, ErrNotBackup, ErrNewer, ErrTooLarge} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Errorf("an error of no kind: %v", err)
	})
}

func TestPassphrases(t *testing.T) {
	for phrase, ok := range map[string]bool{
		"twelve chars": true, "eleven char": false, "zwölf Zeiche": true, strings.Repeat("a", MaxPassphrase+1): false,
		"a line\nand another": false, "not utf-8 \xff at all": false, NewPassphrase(): true,
	} {
		if err := CheckPassphrase(phrase); (err == nil) != ok {
			t.Errorf("%q: got %v", phrase, err)
		}
	}
	if a, b := NewPassphrase(), NewPassphrase(); a == b || len(a) != 29 {
		t.Errorf("got %q and %q", a, b)
	}
}
