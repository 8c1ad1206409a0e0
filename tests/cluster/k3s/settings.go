package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	defaultData   = "/var/lib/rancher/k3s"
	configFile    = "/etc/rancher/k3s/config.yaml"
	registryFile  = "/etc/rancher/k3s/registries.yaml"
	adminFile     = "/etc/rancher/k3s/k3s.yaml"
	nodePassword  = "/etc/rancher/node/password"
	apiPort       = "6443"
	clusterRange  = "10.42.0.0/16"
	serviceRange  = "10.43.0.0/16"
	clusterDNS    = "10.43.0.10"
	clusterDomain = "cluster.local"
)

// known are the settings that do something here, and those of k3s whose absence here changes nothing a test looks at. Any other is refused as k3s
// refuses it on the command line, and warned of in the file.
var known = strings.Fields(`
	agent-token agent-token-file bind-address advertise-address advertise-port cluster-cidr cluster-dns cluster-domain cluster-init cluster-reset cluster-reset-restore-path data-dir debug
	default-local-storage-path disable disable-agent disable-apiserver-lb disable-cloud-controller disable-default-registry-endpoint
	disable-helm-controller disable-kube-proxy disable-network-policy embedded-registry etcd-expose-metrics etcd-snapshot-compress
	etcd-snapshot-dir etcd-snapshot-retention etcd-snapshot-schedule-cron flannel-backend flannel-iface https-listen-port kube-apiserver-arg
	kube-controller-manager-arg kube-proxy-arg kube-scheduler-arg kubelet-arg log node-external-ip node-ip node-label node-name node-taint
	pause-image prefer-bundled-bin private-registry protect-kernel-defaults resolv-conf secrets-encryption selinux server service-cidr
	service-node-port-range snapshotter supervisor-metrics system-default-registry tls-san token token-file v write-kubeconfig
	write-kubeconfig-group write-kubeconfig-mode`)

// settings are what the file and the command line say: every value a list, the command line's first.
type settings struct {
	verb   string
	values map[string][]string
}

func load(verb string, arguments []string) (*settings, error) {
	found := &settings{verb: verb, values: map[string][]string{}}
	file := configFile
	for index := 0; index < len(arguments); index++ {
		name, value, given := strings.Cut(strings.TrimLeft(arguments[index], "-"), "=")
		if name == "config" || name == "c" || contains(known, name) {
			if !given && index+1 < len(arguments) && !strings.HasPrefix(arguments[index+1], "-") {
				index++
				value = arguments[index]
			} else if !given {
				value = "true"
			}
		} else {
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		if name == "config" || name == "c" {
			file = value
			continue
		}
		found.values[name] = append(found.values[name], value)
	}
	files, _ := filepath.Glob(file + ".d/*.yaml")
	sort.Strings(files)
	for _, name := range append([]string{file}, files...) {
		if err := found.read(name); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (found *settings) read(name string) error {
	text, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		return fmt.Errorf("failed to parse %s: %w", name, err)
	}
	for key, value := range values {
		if !contains(known, key) {
			say("warning", "Unknown flag --"+key+" found in "+name+", skipping")
			continue
		}
		if list, many := value.([]any); many {
			for _, item := range list {
				found.values[key] = append(found.values[key], fmt.Sprint(item))
			}
		} else if value != nil {
			found.values[key] = append(found.values[key], fmt.Sprint(value))
		}
	}
	return nil
}

func (found *settings) one(name, otherwise string) string {
	if values := found.values[name]; len(values) > 0 {
		return values[0]
	}
	return otherwise
}

func (found *settings) is(name string) bool { return found.one(name, "false") == "true" }

func (found *settings) data(parts ...string) string {
	return filepath.Join(append([]string{found.one("data-dir", defaultData)}, parts...)...)
}

// extra are the arguments that a component gets beyond ours, of `kubelet-arg: [name=value]`.
func (found *settings) extra(component string) []string {
	var arguments []string
	for _, value := range found.values[component+"-arg"] {
		arguments = append(arguments, "--"+strings.TrimPrefix(value, "--"))
	}
	return arguments
}

func (found *settings) nodeName() string {
	host, _ := os.Hostname()
	return strings.ToLower(found.one("node-name", host))
}

// secret is the value of a setting or the contents of the file that `<name>-file` says.
func (found *settings) secret(name string) (string, error) {
	if value := found.one(name, ""); value != "" {
		return value, nil
	}
	file := found.one(name+"-file", "")
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}

// bare is a token without the CA's digest and the account before it.
func bare(token string) string {
	if strings.HasPrefix(token, "K10") {
		_, token, _ = strings.Cut(token, "::")
		_, token, _ = strings.Cut(token, ":")
	}
	return token
}

func randomToken() string {
	bytes := make([]byte, 16)
	rand.Read(bytes)
	return hex.EncodeToString(bytes)
}

func contains(list []string, item string) bool {
	for _, one := range list {
		if one == item {
			return true
		}
	}
	return false
}

func say(level, text string) { fmt.Fprintf(os.Stderr, "level=%s msg=%q\n", level, text) }

// write puts a private file in place at once.
func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
