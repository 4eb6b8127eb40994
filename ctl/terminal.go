package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Terminal is a person who can be asked.
type Terminal interface {
	Line(ctx context.Context, prompt string) (string, error)
	Secret(ctx context.Context, prompt string) (string, error) // not shown while typed
}

// openTerminal returns the person at in, or nil when in is not a terminal.
func openTerminal(in *os.File, out io.Writer) Terminal {
	if !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return &terminal{in: in, out: out, lines: bufio.NewReader(in)}
}

type terminal struct {
	in    *os.File
	out   io.Writer
	lines *bufio.Reader
}

func (t *terminal) Line(ctx context.Context, prompt string) (string, error) {
	return t.ask(ctx, prompt, func() (string, error) { return t.lines.ReadString('\n') })
}

func (t *terminal) Secret(ctx context.Context, prompt string) (string, error) {
	state, err := term.GetState(int(t.in.Fd()))
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		_ = term.Restore(int(t.in.Fd()), state) // an interrupted ReadPassword leaves the echo off
		fmt.Fprintln(t.out)
	}()
	return t.ask(ctx, prompt, func() (string, error) {
		b, err := term.ReadPassword(int(t.in.Fd()))
		return string(b), err
	})
}

// ask reads in a goroutine, since a read of a terminal cannot be cancelled;
// when ctx ends first, the goroutine ends with the process, which is next.
func (t *terminal) ask(ctx context.Context, prompt string, read func() (string, error)) (string, error) {
	fmt.Fprint(t.out, prompt)
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := read()
		done <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-done:
		if errors.Is(a.err, io.EOF) && a.text != "" {
			a.err = nil
		}
		return strings.TrimRight(a.text, "\r\n"), a.err
	}
}

// yes puts a question to the person at the terminal.
func (a *app) yes(ctx context.Context, question string) (bool, error) {
	answer, err := a.env.Terminal.Line(ctx, question+" Type yes: ")
	return strings.EqualFold(strings.TrimSpace(answer), "yes"), err
}

// secret finds a secret where the person or program put it: a file, the
// environment, or the terminal. Never an argument: everybody on the machine
// can read those.
func (a *app) secret(ctx context.Context, what, file, env string) (string, error) {
	switch {
	case file != "":
		return secretFile(file)
	case a.env.Getenv(env) != "":
		return a.env.Getenv(env), nil
	case a.env.Terminal == nil:
		return "", &usageError{fmt.Errorf("%s: nobody to ask; set %s or give a file", what, env)}
	}
	return a.env.Terminal.Secret(ctx, what+": ")
}

// maxSecret bounds a secret's file.
const maxSecret = 4096

func secretFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("%s: expected a secret of at most %d octets", path, maxSecret)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
