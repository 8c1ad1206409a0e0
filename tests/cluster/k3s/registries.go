package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// registries is /etc/rancher/k3s/registries.yaml.
type registries struct {
	Mirrors map[string]struct {
		Endpoint []string          `yaml:"endpoint"`
		Rewrite  map[string]string `yaml:"rewrite"`
	} `yaml:"mirrors"`
	Configs map[string]registry `yaml:"configs"`
}

type registry struct {
	Auth *struct {
		Username string `yaml:"username"`
		Password string `yaml:"password"`
		Auth     string `yaml:"auth"`
		Token    string `yaml:"identity_token"`
	} `yaml:"auth"`
	TLS *struct {
		CA       string `yaml:"ca_file"`
		Cert     string `yaml:"cert_file"`
		Key      string `yaml:"key_file"`
		Insecure bool   `yaml:"insecure_skip_verify"`
	} `yaml:"tls"`
}

// containerdConfig is config.toml; the mirrors go to files beside it, which is where this containerd wants them.
func (own *node) containerdConfig() (string, error) {
	found := registries{}
	text, err := os.ReadFile(own.one("private-registry", registryFile))
	if err == nil {
		err = yaml.Unmarshal(text, &found)
	}
	if err != nil && !os.IsNotExist(err) {
		return "", fmt.Errorf("registries.yaml: %w", err)
	}
	folder := own.data("agent", "etc", "containerd", "certs.d")
	if err := own.writeHosts(folder, found); err != nil {
		return "", err
	}
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/k3s/containerd"
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %q
  conf_dir = %q
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = %q
`, own.data("agent", "containerd"), containerdSocket, own.data("agent", "containerd", "opt"), own.one("pause-image", pauseImage),
		own.one("snapshotter", "overlayfs"), filepath.Join(own.root, "bin"), own.data("agent", "etc", "cni", "net.d"), folder) + accounts(found), nil
}

func accounts(found registries) string {
	text := ""
	for host, config := range found.Configs {
		if config.Auth == nil {
			continue
		}
		text += fmt.Sprintf("[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.%q.auth]\n", host)
		for name, value := range map[string]string{
			"username": config.Auth.Username, "password": config.Auth.Password, "auth": config.Auth.Auth, "identitytoken": config.Auth.Token,
		} {
			if value != "" {
				text += fmt.Sprintf("  %s = %q\n", name, value)
			}
		}
	}
	return text
}

func (own *node) writeHosts(folder string, found registries) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	names := map[string][]string{}
	for host := range found.Configs {
		names[host] = nil
	}
	for name, mirror := range found.Mirrors {
		names[name] = mirror.Endpoint
	}
	for name, endpoints := range names {
		directory, origin := name, "https://"+name
		if name == "docker.io" {
			origin = "https://registry-1.docker.io"
		}
		if name == "*" {
			directory = "_default"
		} else if !own.is("disable-default-registry-endpoint") || len(endpoints) == 0 {
			endpoints = append(endpoints, origin)
		}
		text := ""
		if name != "*" {
			text = fmt.Sprintf("server = %q\n", endpoints[len(endpoints)-1])
		}
		for _, endpoint := range endpoints {
			if !strings.Contains(endpoint, "://") {
				endpoint = "https://" + endpoint
			}
			// This containerd takes certificates from a host's table only, so the last resort has one as well.
			text += fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", strings.TrimSuffix(endpoint, "/"))
			text += encryption(found.Configs[hostOf(endpoint)])
		}
		if err := write(filepath.Join(folder, directory, "hosts.toml"), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

func encryption(config registry) string {
	if config.TLS == nil {
		return ""
	}
	text := ""
	if config.TLS.CA != "" {
		text += fmt.Sprintf("  ca = %q\n", config.TLS.CA)
	}
	if config.TLS.Cert != "" {
		text += fmt.Sprintf("  client = [[%q, %q]]\n", config.TLS.Cert, config.TLS.Key)
	}
	if config.TLS.Insecure {
		text += "  skip_verify = true\n"
	}
	return text
}

func hostOf(endpoint string) string {
	_, rest, found := strings.Cut(endpoint, "://")
	if !found {
		rest = endpoint
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}
