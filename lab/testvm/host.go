package testvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"halo.internal/lab/machine"
	"halo.internal/model/cpio"
	"halo.internal/model/paths"
)

// host runs the tests in a machine of their own and returns their exit status.
func host(o Options) (status int, err error) {
	args, timeout, err := arguments(os.Args[1:])
	if err != nil {
		return 0, err
	}
	if args, err = wanted(args, "."); err != nil {
		return 0, err
	}
	images, err := imageDir()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "halo-testvm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit(o, timeout), fmt.Errorf("not finished within %s", limit(o, timeout)))
	defer cancel()

	program, err := build(ctx, dir)
	if err != nil {
		return 0, err
	}
	root := filepath.Join(dir, "root.cpio")
	if err := pack(root, images, program, o, job{Args: args, Env: environment(), Modules: o.Modules}); err != nil {
		return 0, err
	}
	q := qemu{kernel: filepath.Join(images, paths.TestKernel), root: root, log: filepath.Join(dir, "kernel.log"), memoryMB: o.MemoryMB, cpus: max(1, o.CPUs)}
	if o.Parts != nil {
		if q.parts, err = o.Parts(ctx); err != nil {
			return 0, err
		}
	}
	r, err := q.run(ctx, os.Stdout)
	if err == nil && r.Err != "" {
		err = errors.New(r.Err)
	}
	if err != nil || r.Status != 0 {
		showLog(q.log)
	}
	return r.Status, errors.Join(err, bringBack(r.Files))
}

// imageDir finds the folder of built images.
func imageDir() (string, error) {
	if dir := os.Getenv("HALO_IMAGES"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return filepath.Join(at, "out"), nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("expected to run inside a Go module, got %s", dir)
		}
	}
}

// build compiles the tests of the package in the working directory for the
// machine.
func build(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "tests")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "lab", "-trimpath", "-ldflags=-s -w", "-o", program, ".")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build for the machine: %w\n%s", errors.Join(err, context.Cause(ctx)), out)
	}
	return program, nil
}

// environment returns HALO's variables, which are settings of tests.
func environment() []string {
	var all []string
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "HALO_") {
			all = append(all, e)
		}
	}
	return all
}

// pack writes the machine's root: what halo-image made, then what is particular
// to this run.
func pack(to, images, program string, o Options, j job) (err error) {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	parts := []string{paths.TestRoot}
	for _, p := range o.Packages {
		parts = append(parts, paths.TestPackage(p))
	}
	for _, p := range parts {
		if err := appendFile(out, filepath.Join(images, p)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w; `make testvm` makes it (a package must be one of test_packages in the packing manifest)", err)
			}
			return err
		}
	}
	a := cpio.Archive{}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "var/run", "root", workDir} {
		a.Dir(d)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	a.File(initial, 0o755, binary)
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	a.File(jobFile, 0o644, b)
	if err := readTestdata(".", func(name string, b []byte) { a.File(filepath.Join(workDir, name), 0o644, b) }); err != nil {
		return err
	}
	return a.Write(out)
}

func appendFile(to io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}

// readTestdata calls f for all files below testdata in dir, by their name from
// there; without the folder there are none.
func readTestdata(dir string, f func(name string, b []byte)) error {
	err := filepath.WalkDir(filepath.Join(dir, "testdata"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		f(name, b)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// bringBack writes the files that tests changed.
func bringBack(files map[string][]byte) error {
	var errs []error
	for name, b := range files {
		if filepath.Clean(name) != name || !strings.HasPrefix(name, "testdata/") {
			errs = append(errs, fmt.Errorf("changed file: expected it below testdata, got %q", name))
			continue
		}
		errs = append(errs, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644))
	}
	return errors.Join(errs...)
}

// showLog prints the end of the kernel's log.
func showLog(name string) {
	b, err := os.ReadFile(name)
	if err != nil || len(b) == 0 {
		return // QEMU did not even start
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	const most = 60
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	fmt.Fprintf(os.Stderr, "--- kernel log, last %d lines\n%s\n---\n", len(lines), bytes.Join(lines, []byte("\n")))
}

// qemu is one run of the machine.
type qemu struct {
	kernel, root, log string
	memoryMB, cpus    int
	parts             []machine.Part
}

const defaultMemoryMB = 384

// run boots the machine, copies what the tests print to out, and returns their
// result when the machine has ended.
func (q qemu) run(ctx context.Context, out io.Writer) (result, error) {
	program, err := exec.LookPath("qemu-system-aarch64")
	if err != nil {
		return result{}, fmt.Errorf("%w; on Debian: apt-get install qemu-system-arm", err)
	}
	output, outputFD, err := machine.Wire()
	if err != nil {
		return result{}, err
	}
	defer output.Close()
	answer, answerFD, err := machine.Wire()
	if err != nil {
		return result{}, errors.Join(err, outputFD.Close())
	}
	defer answer.Close()

	// The kernel ends QEMU when the thread that made it ends, and so with this
	// process. Where it does not, the machine ends itself: see resultPort.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	args, theirs := q.arguments(), []*os.File{outputFD, answerFD}
	closeTheirs := func() (err error) {
		for _, f := range theirs {
			err = errors.Join(err, f.Close())
		}
		return err
	}
	plugs := make([]net.Conn, len(q.parts))
	for i, p := range q.parts {
		near, far, err := machine.Wire()
		if err != nil {
			return result{}, errors.Join(err, closeTheirs())
		}
		defer near.Close()
		plugs[i], theirs = near, append(theirs, far)
		args = append(args, p.Arguments(i, 2+len(theirs))...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.ExtraFiles = theirs
	cmd.SysProcAttr = machine.OwnChild()
	var complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &complaint, &complaint
	err = cmd.Start()
	if err = errors.Join(err, closeTheirs()); err != nil {
		return result{}, err
	}
	for i, p := range q.parts {
		err = errors.Join(err, p.Plug(plugs[i]))
	}
	if err != nil {
		return result{}, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	var r result
	var copyErr, resultErr error
	var reading sync.WaitGroup
	reading.Go(func() { _, copyErr = io.Copy(out, output) })
	reading.Go(func() { resultErr = json.NewDecoder(answer).Decode(&r) })
	err = cmd.Wait()
	reading.Wait()
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	if resultErr != nil {
		return r, fmt.Errorf("the machine ended without a result (%v, %w): %s", cmd.ProcessState, resultErr, strings.TrimSpace(complaint.String()))
	}
	return r, errors.Join(err, copyErr)
}

func (q qemu) arguments() []string {
	processor, parameters := machine.Accelerator()
	memory := q.memoryMB
	if memory == 0 {
		memory = defaultMemoryMB
	}
	return append([]string{
		"-name", "testvm", "-M", "virt,memory-backend=ram", "-smp", fmt.Sprint(q.cpus), "-m", fmt.Sprint(memory),
		"-object", machine.SharedOrNot(q.parts) + fmt.Sprintf(",id=ram,size=%dM", memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-kernel", q.kernel, "-initrd", q.root,
		"-append", strings.TrimSpace("console=ttyAMA0 panic=-1 oops=panic transparent_hugepage=never " + parameters),
		"-chardev", "file,id=log,path=" + strings.ReplaceAll(q.log, ",", ",,"), "-serial", "chardev:log",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=output,fd=3", "-device", "virtserialport,chardev=output,name=" + outputPort,
		"-chardev", "socket,id=result,fd=4", "-device", "virtserialport,chardev=result,name=" + resultPort,
	}, processor...)
}
