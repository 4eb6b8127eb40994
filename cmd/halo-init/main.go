// Command halo-init is the initramfs: the machine's first program, the guard
// that it leaves behind, and what the kernel calls for a module. Which of them
// it is to be, it tells from how it was called.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"halo.internal/image/boot"
	"halo.internal/image/boot/guard"
	"halo.internal/model/version"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("halo-init", version.Get())
		return
	}
	log, run := role()
	if err := run(); err != nil {
		log.Error("ends", "err", err)
		os.Exit(1) // of PID 1: a panic, and so a restart
	}
}

// role picks what to do, with a log for it.
func role() (*slog.Logger, func() error) {
	open, name, run := boot.KernelLog, "halo-init", func(*slog.Logger) error {
		return fmt.Errorf("expected to be started by the kernel, as PID 1 or as its modprobe; see --version")
	}
	switch {
	case os.Getpid() == 1:
		open, run = boot.OpenKernelLog, boot.Run
	case os.Args[0] == boot.GuardName:
		name = boot.GuardName
		run = func(log *slog.Logger) error { return guard.Run(context.Background(), log) }
	case boot.IsModprobe(os.Args):
		name = "modprobe"
		run = func(log *slog.Logger) error { return boot.Modprobe(log, os.Args[3]) }
	}
	log, err := open(name)
	if err != nil {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		log.Error("kernel log", "err", err)
	}
	return log, func() error { return run(log) }
}
