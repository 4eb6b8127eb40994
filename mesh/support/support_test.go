package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// unpack returns the files of a bundle.
func unpack(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
}

func says(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	err := Write(t.Context(), &b, time.Unix(1e9, 0), []Source{
		{"status.json", says(`{"psk":"correct horse battery"}`)},
		{"kernel.txt", says(strings.Repeat("x", MaxFile) + "the end")},
		{"crash.txt", func(context.Context) ([]byte, error) { return nil, errors.New("token halo-join-7 is no crash") }},
		{"fault.txt", func(context.Context) ([]byte, error) { panic("a fault") }},
		{"quoted.json", says(`"a\u003cb\"c"`)},
		{"quoted.log", says(`level=ERROR err="a<b\"c"`)},
		{"cut.txt", says("horse-join-7" + strings.Repeat("x", MaxFile-4))},
		{"a.txt", says("horse, of the secret; a horse")},
	}, []string{"horse", "correct horse battery", "halo-join-7", "a<b\"c", "horse-join-7", "a", ""})
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, b.Bytes())
	for name, want := range map[string]string{
		"halo-support/status.json": `{"psk":"[secret]"}`,
		"halo-support/quoted.json": `"[secret]"`,
		"halo-support/quoted.log":  `level=ERROR err="[secret]"`,
		"halo-support/cut.txt":     "ret]" + strings.Repeat("x", MaxFile-4),
		"halo-support/a.txt":       "[secret], of the secret; a [secret]",
		"halo-support/missing.txt": "crash.txt: token [secret] is no crash\nfault.txt: panic: a fault\n",
	} {
		if files[name] != want {
			t.Errorf("%s: got %.100q, want %.100q", name, files[name], want)
		}
	}
	if k := files["halo-support/kernel.txt"]; len(k) != MaxFile || !strings.HasSuffix(k, "the end") {
		t.Errorf("kernel: %d octets", len(k))
	}
	if len(files) != 7 {
		t.Errorf("got %d files", len(files))
	}
}

// TestASourceThatHangs, whatever becomes of its context, is named, and those after it are
// there.
func TestASourceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lets := make(chan struct{})
		var b bytes.Buffer
		began := time.Now()
		err := Write(t.Context(), &b, began, []Source{
			{"interfaces.json", func(context.Context) ([]byte, error) { <-lets; return []byte("late"), nil }},
			{"kernel.txt", says("a driver hangs")},
		}, nil)
		if took := time.Since(began); err != nil || took != sourceWait {
			t.Fatalf("got %v after %s, want a bundle after %s", err, took, sourceWait)
		}
		files := unpack(t, b.Bytes())
		if got := files["halo-support/kernel.txt"]; got != "a driver hangs" {
			t.Errorf("kernel.txt: got %q", got)
		}
		if _, there := files["halo-support/interfaces.json"]; there || !strings.HasPrefix(files["halo-support/missing.txt"], "interfaces.json: expected an answer within 10s") {
			t.Errorf("missing.txt: got %q", files["halo-support/missing.txt"])
		}
		close(lets)
	})
}

// TestTheWholeIsBounded: what has no more room is named.
func TestTheWholeIsBounded(t *testing.T) {
	var sources []Source
	for i := range 2 * MaxBundle / MaxFile {
		sources = append(sources, Source{string(rune('a' + i)), says(strings.Repeat("x", MaxFile))})
	}
	var b bytes.Buffer
	if err := Write(t.Context(), &b, time.Unix(1e9, 0), sources, nil); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, b.Bytes())
	if len(files) != 1+MaxBundle/MaxFile || strings.Count(files["halo-support/missing.txt"], "no room") != MaxBundle/MaxFile {
		t.Errorf("got %d files, missing %q", len(files), files["halo-support/missing.txt"])
	}
}

type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestAWriterThatFails(t *testing.T) {
	for _, room := range []int{0, 20} {
		if err := Write(t.Context(), &full{room}, time.Now(), []Source{{"a", says("b")}}, nil); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("with room for %d: %v", room, err)
		}
	}
}
