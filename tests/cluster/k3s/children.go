package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// children are the programs of the archive that run under this process. They end with it; what containerd's shims hold does not, as with k3s
// and KillMode=process.
type children struct {
	root  string
	ended chan error
}

func newChildren(root string) *children { return &children{root: root, ended: make(chan error, 16)} }

// start runs a program whose end is the end of this process; its output goes to ours, or to a file.
func (all *children) start(log, program string, arguments ...string) error {
	command := exec.Command(filepath.Join(all.root, "bin", program), arguments...)
	command.Env = append(os.Environ(), surroundings(all.root)...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if log != "" {
		os.MkdirAll(filepath.Dir(log), 0o700)
		file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		command.Stdout, command.Stderr = file, file
	}
	// At once, as parts of one process would: an API server that still takes leave of its clients has the port that the next one needs.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal is sent when the thread that started the program ends: it must be one that stays.
		runtime.LockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			err = command.Wait()
			all.ended <- fmt.Errorf("%s ended: %v", program, err)
		}
	}()
	return <-started
}

// output runs a program to its end.
func (all *children) output(program string, arguments ...string) (string, error) {
	command := exec.Command(filepath.Join(all.root, "bin", program), arguments...)
	command.Env = append(os.Environ(), surroundings(all.root)...)
	text, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", program, err, text)
	}
	return string(text), err
}

// wait returns when a child has ended or this process is told to stop.
func (all *children) wait() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-all.ended:
		return err
	case <-signals:
		return nil
	}
}

// until repeats an attempt till it works; a child's end breaks it off.
func (all *children) until(what string, attempt func() error) error {
	for tries := 0; ; tries++ {
		err := attempt()
		if err == nil {
			return nil
		}
		if tries%50 == 49 {
			say("info", "Waiting for "+what+": "+err.Error())
		}
		select {
		case err := <-all.ended:
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// notify is where systemd listens. What this process starts is not to speak for it.
var notify = func() string {
	socket := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	return socket
}()

// ready tells systemd.
func ready() {
	if notify == "" {
		return
	}
	if connection, err := net.Dial("unixgram", notify); err == nil {
		connection.Write([]byte("READY=1\n"))
		connection.Close()
	}
}
