package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
)

const apiLong = `Api makes one request of the gateway's API, with your login, and prints what is
answered: as it came, or on a terminal indented. /openapi.json and /docs describe
the API; docs/api.md lists its routes.

Nothing is followed, and nothing tried again but what the gateway holds back for
some seconds, which it has not begun. With --all, the pages of a list become
one. A body is JSON, from --body. What takes the place of all that is there needs
--if-match, with the ETag that a GET has answered with, or '*'; a POST is carried
out once under one --key, however often it is sent.`

// methods of the API.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// Bounds of what is read whole.
const (
	maxBody  = 1 << 20
	maxShown = 16 << 20 // on a terminal, where it is made harmless first
)

func (a *app) apiCommand() *cobra.Command {
	var r client.Raw
	var body string
	var whole bool
	c := a.call("api METHOD PATH", "make a request of the gateway's API, and print the answer", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) (err error) {
		if err := readRequest(&r, args[0], args[1]); err != nil {
			return err
		}
		switch {
		case a.form != formPeople && a.form != formJSON:
			return &usageError{fmt.Errorf("-o %s: expected to be without: what the API answers is printed as it is", a.form)}
		case whole && r.Method != http.MethodGet:
			return &usageError{fmt.Errorf("--all: expected GET, got %s", r.Method)}
		case body != "" && r.Method == http.MethodGet:
			return &usageError{errors.New("--body: expected another method than GET")}
		case body != "":
			if r.Body, err = a.jsonBody(body); err != nil {
				return err
			}
		}
		if whole {
			list, err := c.All(ctx, r)
			if err != nil {
				return err
			}
			b, err := json.Marshal(list)
			if err != nil {
				return err
			}
			return a.printAnswer("application/json", append(b, '\n'))
		}
		return a.apiCall(ctx, c, r)
	})
	c.Long = apiLong
	c.Example = `  haloctl api get '/v1/telemetry/latest?metric=power.'
  haloctl api get /v1/nodes --all | jq -r '.items[].name'
  echo '{"name": "mast"}' | haloctl api patch /v1/nodes/n01 --body -`
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			for _, m := range methods {
				words = append(words, strings.ToLower(m))
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	c.Flags().StringVar(&body, "body", "", "`file` that holds the body; - for standard input")
	c.Flags().BoolVar(&whole, "all", false, "of a list, all pages")
	c.Flags().StringVar(&r.Match, "if-match", "", "only if what is there has this `ETag`, with its quotes")
	c.Flags().StringVar(&r.Key, "key", "", "Idempotency-Key: a `text` of 16 to 128 characters")
	return c
}

// readRequest reads method and path as a person writes them.
func readRequest(r *client.Raw, method, path string) error {
	if r.Method = strings.ToUpper(method); !slices.Contains(methods, r.Method) {
		return &usageError{fmt.Errorf("METHOD: expected get, post, put, patch or delete, got %q", method)}
	}
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || u.Fragment != "" || !strings.HasPrefix(u.Path, "/") {
		return &usageError{fmt.Errorf("PATH: expected one such as /v1/nodes?limit=10, got %q", path)}
	}
	if r.Query, err = url.ParseQuery(u.RawQuery); err != nil {
		return &usageError{fmt.Errorf("PATH: %w", err)}
	}
	r.Path = u.EscapedPath()
	return nil
}

func (a *app) jsonBody(name string) ([]byte, error) {
	file, done, err := a.input(name)
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := io.ReadAll(io.LimitReader(file, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxBody:
		return nil, &usageError{fmt.Errorf("--body: expected at most %d octets", maxBody)}
	case !json.Valid(b):
		return nil, &usageError{errors.New("--body: expected JSON")}
	}
	return b, nil
}

// apiCall prints an answer as it comes; for a terminal, when it is there.
func (a *app) apiCall(ctx context.Context, c *client.Client, r client.Raw) error {
	if !a.onTerminal() {
		return c.Do(ctx, r, func(string) io.Writer { return a.env.Stdout })
	}
	var kind string
	var b bounded
	if err := c.Do(ctx, r, func(k string) io.Writer { kind = k; return &b }); err != nil {
		return err
	}
	return a.printAnswer(kind, b.Bytes())
}

// bounded holds what is not too long for a terminal.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxShown {
		return 0, &hintError{fmt.Errorf("the answer has more than %d octets", maxShown), "send it to a file, with > FILE"}
	}
	return b.Buffer.Write(p)
}

// printAnswer prints JSON on a terminal with indents, and there nothing that could rewrite
// the screen.
func (a *app) printAnswer(kind string, answer []byte) error {
	if !a.onTerminal() {
		_, err := a.env.Stdout.Write(answer)
		return err
	}
	var pretty bytes.Buffer
	if (kind == "application/json" || strings.HasSuffix(kind, "+json")) && json.Indent(&pretty, answer, "", "  ") == nil {
		// What JSON leaves as it is in its texts, it can escape too.
		_, err := fmt.Fprintln(a.env.Stdout, strings.TrimSpace(escaped(pretty.String())))
		return err
	}
	for line := range strings.Lines(string(answer)) {
		if _, err := fmt.Fprintln(a.env.Stdout, table.Harmless(strings.TrimRight(line, "\r\n"))); err != nil {
			return err
		}
	}
	return nil
}

// escaped has control and invisible formatting characters in JSON's texts as \uXXXX.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || !table.Invisible(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// onTerminal tells whether a person reads what is printed.
func (a *app) onTerminal() bool {
	f, ok := a.env.Stdout.(*os.File)
	return a.env.Console != "" || ok && term.IsTerminal(int(f.Fd()))
}
