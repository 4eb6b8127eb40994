// Package console is haloctl's prompt on a device's own screen and serial port.
// There is no shell behind it: a line is a haloctl command, run in this process.
// Who types the device's code, which the gateway shows to admins, is let in; it
// works while the gateway is off. What is typed as a code is not shown. A console
// that nobody touches for some minutes is logged out.
//
// The kernel writes to the same screen whenever it likes; Enter brings the prompt
// back.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"halo.internal/local"
	"halo.internal/model"
)

// Idle is after how long without a key a console is logged out.
const Idle = 10 * time.Minute

// Device is what a console asks of halo-mesh.
type Device interface {
	Status(context.Context) (model.MeshStatus, error)
	// CheckCode returns nil when the code is the device's.
	CheckCode(context.Context, model.CodeTry) error
}

var _ Device = (*local.Mesh)(nil)

// Asker asks the person at the console.
type Asker interface {
	Line(ctx context.Context, prompt string) (string, error)
	Secret(ctx context.Context, prompt string) (string, error)
}

// Config of a console.
type Config struct {
	Name   string // of the terminal, such as ttyAMA0
	Device Device
	// Login begins a session and returns what runs its commands, and what ends it.
	Login func() (run func(ctx context.Context, args []string, out io.Writer, person Asker), logout func())
	Idle  time.Duration
	Log   *slog.Logger
}

// Serve speaks with whoever is at the terminal, which is raw, until ctx ends or
// the terminal fails. It reads in a goroutine that ends when the terminal, which
// is the caller's to close, gives nothing any more.
func (c Config) Serve(ctx context.Context, tty io.ReadWriter) error {
	k := newKeys()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go k.pump(tty)
	defer context.AfterFunc(ctx, k.wake)()
	s := &session{Config: c, keys: k, screen: term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{k, tty}, "")}
	if s.Idle == 0 {
		s.Idle = Idle
	}
	for ctx.Err() == nil {
		if err := s.visit(ctx); err != nil && !errors.Is(err, errIdle) && !errors.Is(err, io.EOF) {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := k.failed(); err != nil {
			return err
		}
	}
	return nil
}

// session is what happens at one terminal.
type session struct {
	Config
	keys   *keys
	screen *term.Terminal
}

func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.screen, format+"\n", args...) // a terminal that is gone shows when it is read
}

// visit is from the key that somebody presses to his going.
func (s *session) visit(ctx context.Context) error {
	s.keys.patience(ctx, 0)
	// Not shown: a code may be pasted before it is asked for.
	if _, err := s.screen.ReadPassword(""); err != nil {
		return err
	}
	s.keys.patience(ctx, s.Idle)
	state, err := s.Device.Status(ctx)
	switch {
	case err != nil:
		s.say("\nHALO: %v.", err)
		return nil
	case !state.Joined:
		s.say("\nHALO %s (%s): %s. There is no login before it has joined.", state.Name, state.Node, waits(state))
		return nil
	}
	s.say("\nHALO %s (%s) of %s. Its code: haloctl node console-code %s, or the Portal.", state.Name, state.Node, state.Network, state.Name)
	code, err := s.screen.ReadPassword("Code: ")
	if errors.Is(err, errIdle) {
		s.say("\nTime is up.")
	}
	if err != nil || strings.TrimSpace(code) == "" {
		return err
	}
	err = s.Device.CheckCode(ctx, model.CodeTry{Code: code, Where: "console " + s.Name})
	if err != nil {
		s.say("%s.", plain(err))
		return nil
	}
	return s.prompt(ctx, state)
}

// waits says where joining stands.
func waits(s model.MeshStatus) string {
	if s.JoinDetail == "" {
		return string(s.Join)
	}
	return string(s.Join) + ", " + s.JoinDetail
}

// plain is an error in halo-mesh's own words.
func plain(err error) string {
	if r, ok := errors.AsType[*local.Refusal](err); ok {
		return r.Text
	}
	return err.Error()
}

// prompt takes commands until somebody leaves or has left.
func (s *session) prompt(ctx context.Context, state model.MeshStatus) error {
	run, logout := s.Login()
	defer logout()
	s.say("Logged in. help shows the commands; exit, or %s without a key, logs out.", s.Idle)
	s.screen.History = &lines{}
	defer func() { s.screen.History = &lines{} }() // the next one sees nothing of it
	for {
		s.screen.SetPrompt(state.Name + "> ")
		line, err := s.screen.ReadLine()
		s.screen.SetPrompt("")
		if err != nil {
			s.say("\nLogged out.")
			return err
		}
		args, err := Split(line)
		if err != nil {
			s.say("%v", err)
			continue
		}
		if len(args) > 0 && args[0] == "haloctl" {
			args = args[1:]
		}
		switch {
		case len(args) == 0:
		case args[0] == "exit" || args[0] == "quit":
			s.say("Logged out.")
			return nil
		case args[0] == "help":
			s.run(ctx, run, append([]string{"--help"}, args[1:]...))
		default:
			s.run(ctx, run, args)
		}
		if s.keys.isIdle() {
			s.say("\nLogged out.")
			return errIdle
		}
	}
}

// run runs a command until it ends, somebody presses Ctrl-C, or nobody presses
// anything.
func (s *session) run(ctx context.Context, run func(context.Context, []string, io.Writer, Asker), args []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.keys.interrupts(cancel)
	defer s.keys.interrupts(nil)
	run(ctx, args, s.screen, asker{s})
}

// asker lets a command ask.
type asker struct{ s *session }

// Line implements Asker.
func (a asker) Line(ctx context.Context, prompt string) (string, error) {
	a.s.screen.SetPrompt(prompt)
	defer a.s.screen.SetPrompt("")
	line, err := a.s.screen.ReadLine()
	return line, errors.Join(ctx.Err(), err)
}

// Secret implements Asker.
func (a asker) Secret(ctx context.Context, prompt string) (string, error) {
	line, err := a.s.screen.ReadPassword(prompt)
	return line, errors.Join(ctx.Err(), err)
}

// lines is the history of one session.
type lines struct {
	mu   sync.Mutex // guards list
	list []string
}

const maxLines = 50

// Add implements term.History.
func (l *lines) Add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, s)
	l.list = l.list[max(0, len(l.list)-maxLines):]
}

// Len implements term.History.
func (l *lines) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list)
}

// At implements term.History.
func (l *lines) At(i int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list[len(l.list)-1-i]
}
