// Command k3s stands in for k3s where its releases cannot be fetched: the command line, files, paths, token and service protocol of k3s over the
// real components of Kubernetes. One file; what it starts lies in an archive at its end. For tests only.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// What it says it is; another one is linked in for upgrades.
var release = "v1.34.3+k3s1"

const usage = `NAME:
   k3s - Kubernetes, small and simple (the stand-in of binder-onprem's tests)

COMMANDS:
   server         Run management server
   agent          Run node agent
   kubectl        Run kubectl
   crictl         Run crictl
   ctr            Run ctr
   token          Manage tokens
   certificate    Manage K3s certificates
   etcd-snapshot  Manage etcd snapshots
`

func main() {
	arguments := os.Args[1:]
	if name := filepath.Base(os.Args[0]); name == "kubectl" || name == "ctr" || name == "crictl" {
		arguments = append([]string{name}, arguments...)
	}
	if err := run(arguments); err != nil {
		fmt.Fprintf(os.Stderr, "level=fatal msg=%q\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		fmt.Print(usage)
		return nil
	}
	verb, rest := arguments[0], arguments[1:]
	switch verb {
	case "--version", "-v":
		fmt.Printf("k3s version %s (stand-in)\ngo version %s\n", release, runtime.Version())
		return nil
	case "--help", "-h", "help":
		fmt.Print(usage)
		return nil
	case "server", "agent":
		settings, err := load(verb, rest)
		if err != nil {
			return err
		}
		if verb == "server" {
			return serve(settings)
		}
		return join(settings)
	case "kubectl":
		return become("kubectl", append([]string{"kubectl"}, rest...), kubeconfig())
	case "ctr":
		return become("ctr", append([]string{"ctr", "--address", containerdSocket, "--namespace", "k8s.io"}, rest...), "")
	case "crictl":
		return become("crictl", append([]string{"crictl", "--runtime-endpoint", "unix://" + containerdSocket}, rest...), "")
	case "token":
		return tokenCommand(rest)
	case "certificate":
		return certificateCommand(rest)
	case "etcd-snapshot":
		return snapshotCommand(rest)
	}
	return fmt.Errorf("No help topic for '%s'", verb)
}

// kubeconfig is what kubectl reads unless it is told otherwise: the administrator's file that a server writes.
func kubeconfig() string {
	if os.Getenv("KUBECONFIG") != "" {
		return ""
	}
	return "KUBECONFIG=/etc/rancher/k3s/k3s.yaml"
}

// become replaces this process by a program of the archive.
func become(program string, arguments []string, variable string) error {
	root, err := unpack(defaultData)
	if err != nil {
		return err
	}
	environment := append(os.Environ(), surroundings(root)...)
	if variable != "" {
		environment = append(environment, variable)
	}
	path := filepath.Join(root, "bin", program)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("this stand-in has no %s", program)
	}
	return syscall.Exec(path, arguments, environment)
}
