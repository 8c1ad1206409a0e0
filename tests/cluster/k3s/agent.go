package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	containerdSocket = "/run/k3s/containerd/containerd.sock"
	pauseImage       = "docker.io/rancher/mirrored-pause:3.6"
)

// node is the part of a server or an agent that runs pods.
type node struct {
	*settings
	*children
	address, api, token string
	ca                  []byte
}

func join(found *settings) error {
	token, err := found.secret("token")
	if err != nil {
		return err
	}
	if token == "" {
		return fmt.Errorf("--token is required")
	}
	server := strings.TrimSuffix(found.one("server", ""), "/")
	if server == "" {
		return fmt.Errorf("--server is required")
	}
	root, err := unpack(found.data())
	if err != nil {
		return err
	}
	own := &node{settings: found, children: newChildren(root), api: server, token: bare(token)}
	if own.address, err = nodeAddress(found, server); err != nil {
		return err
	}
	if err := own.until("the server", func() error { own.ca, err = authorityOf(server, token); return err }); err != nil {
		return err
	}
	if err := own.start(); err != nil {
		return err
	}
	ready()
	return own.wait()
}

// start brings up what a node has, and returns when its kubelet runs.
func (own *node) start() error {
	if err := own.provePassword(); err != nil {
		return err
	}
	if err := own.startContainerd(); err != nil {
		return err
	}
	bootstrap, proxy := own.data("agent", "bootstrap.kubeconfig"), own.data("agent", "kubeproxy.kubeconfig")
	for _, path := range []string{bootstrap, proxy} {
		if err := write(path, kubeconfigOf(own.api, own.ca, "", "", own.token)); err != nil {
			return err
		}
	}
	if err := write(own.data("agent", "client-ca.crt"), own.ca); err != nil {
		return err
	}
	if err := own.importImages(); err != nil {
		return err
	}
	go own.watchImages()
	if err := own.startKubelet(bootstrap); err != nil {
		return err
	}
	go own.routes()
	if own.is("disable-kube-proxy") {
		return nil
	}
	arguments := []string{
		"--kubeconfig=" + proxy, "--hostname-override=" + own.nodeName(), "--cluster-cidr=" + own.one("cluster-cidr", clusterRange),
		"--proxy-mode=iptables", "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
		"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
	}
	return own.children.start(own.data("agent", "logs", "kube-proxy.log"), "kube-proxy", append(arguments, own.extra("kube-proxy")...)...)
}

// provePassword keeps another machine from joining by a name that is taken: a server remembers the first one's password.
func (own *node) provePassword() error {
	text, err := os.ReadFile(nodePassword)
	if err != nil {
		text = []byte(randomToken() + "\n")
		if err := write(nodePassword, text); err != nil {
			return err
		}
	}
	sum := base64.StdEncoding.EncodeToString([]byte(digest(text)))
	name := own.nodeName() + ".node-password.k3s"
	secret := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": name}, "data": map[string]string{"hash": sum}}
	server := newAPI(own.api, own.token, own.ca)
	return own.until("the node's password", func() error {
		status, err := server.ask("POST", "/api/v1/namespaces/kube-system/secrets", secret, &map[string]any{})
		if status != 409 {
			return err
		}
		var there struct{ Data map[string]string }
		if _, err := server.ask("GET", "/api/v1/namespaces/kube-system/secrets/"+name, nil, &there); err != nil {
			return err
		}
		if there.Data["hash"] != sum {
			return fmt.Errorf("Node password rejected, duplicate hostname or contents of '%s' may not match server node-passwd entry, "+
				"try enabling a unique node name with the --with-node-id flag", nodePassword)
		}
		return nil
	})
}

func (own *node) startContainerd() error {
	config, err := own.containerdConfig()
	if err != nil {
		return err
	}
	path := own.data("agent", "etc", "containerd", "config.toml")
	if err := write(path, []byte(config)); err != nil {
		return err
	}
	os.MkdirAll(filepath.Dir(containerdSocket), 0o711)
	log := own.data("agent", "containerd", "containerd.log")
	if err := own.children.start(log, "containerd", "--config", path); err != nil {
		return err
	}
	return own.until("containerd", func() error {
		_, err := own.output("ctr", "--address", containerdSocket, "version")
		return err
	})
}

func (own *node) startKubelet(bootstrap string) error {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "cgroupDriver": "cgroupfs", "failSwapOn": false,
		"containerRuntimeEndpoint": "unix://" + containerdSocket, "clusterDNS": []string{own.one("cluster-dns", clusterDNS)},
		"clusterDomain": own.one("cluster-domain", clusterDomain), "rotateCertificates": true, "serializeImagePulls": false, "readOnlyPort": 0,
		"authentication": map[string]any{"anonymous": map[string]bool{"enabled": false}, "webhook": map[string]bool{"enabled": true},
			"x509": map[string]string{"clientCAFile": own.data("agent", "client-ca.crt")}},
		"authorization": map[string]string{"mode": "Webhook"}, "resolvConf": own.one("resolv-conf", "/etc/resolv.conf"),
		"evictionHard": map[string]string{"imagefs.available": "5%", "nodefs.available": "5%"},
	}
	text, _ := yaml.Marshal(config)
	path := own.data("agent", "etc", "kubelet.conf")
	if err := write(path, text); err != nil {
		return err
	}
	arguments := []string{
		"--config=" + path, "--kubeconfig=" + own.data("agent", "kubelet.kubeconfig"), "--bootstrap-kubeconfig=" + bootstrap,
		"--cert-dir=" + own.data("agent", "pki"), "--hostname-override=" + own.nodeName(), "--node-ip=" + own.address, "--root-dir=/var/lib/kubelet",
	}
	if labels := own.values["node-label"]; len(labels) > 0 {
		arguments = append(arguments, "--node-labels="+strings.Join(labels, ","))
	}
	if taints := own.values["node-taint"]; len(taints) > 0 {
		arguments = append(arguments, "--register-with-taints="+strings.Join(taints, ","))
	}
	return own.children.start(own.data("agent", "logs", "kubelet.log"), "kubelet", append(arguments, own.extra("kubelet")...)...)
}
