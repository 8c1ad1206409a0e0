package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

const tunnel = "flannel.1"

// nodeObject is what routes need of one.
type nodeObject struct {
	Metadata struct{ Name string }
	Spec     struct{ PodCIDR string }
	Status   struct {
		Addresses []struct{ Type, Address string }
	}
}

// routes gives this node's pods a bridge, and a tunnel to other nodes' pods as flannel makes it.
func (own *node) routes() {
	server, before := newAPI(own.api, own.token, own.ca), map[string]string{}
	for ; ; time.Sleep(time.Second) {
		var list struct{ Items []nodeObject }
		if _, err := server.ask("GET", "/api/v1/nodes", nil, &list); err != nil {
			say("warning", "Cannot list nodes: "+err.Error())
			continue
		}
		own.follow(list.Items, before)
	}
}

func (own *node) follow(nodes []nodeObject, before map[string]string) {
	now := map[string]string{}
	for _, other := range nodes {
		if other.Metadata.Name == own.nodeName() {
			own.writeBridge(other.Spec.PodCIDR)
			continue
		}
		for _, address := range other.Status.Addresses {
			if address.Type == "InternalIP" && other.Spec.PodCIDR != "" {
				now[other.Spec.PodCIDR] = address.Address
			}
		}
	}
	if !exists("/sys/class/net/" + tunnel) {
		return
	}
	for network, gateway := range now {
		if before[network] != gateway && reach(network, gateway) {
			before[network] = gateway
		}
	}
	for network := range before {
		if now[network] == "" && attempt("ip", "route", "del", network) {
			delete(before, network)
		}
	}
}

// reach sends what is for a network of pods through the tunnel to its node.
func reach(network, gateway string) bool {
	first, _, _ := strings.Cut(network, "/")
	return attempt("bridge", "fdb", "replace", hardware(first), "dev", tunnel, "dst", gateway) &&
		attempt("ip", "neigh", "replace", first, "lladdr", hardware(first), "dev", tunnel, "nud", "permanent") &&
		attempt("ip", "route", "replace", network, "via", first, "dev", tunnel, "onlink")
}

// dig makes this node's end of the tunnel.
func (own *node) dig(network string) {
	if exists("/sys/class/net/" + tunnel) {
		return
	}
	first, _, _ := strings.Cut(network, "/")
	attempt("ip", "link", "add", tunnel, "address", hardware(first), "mtu", "1450", "type", "vxlan", "id", "1", "local", own.address, "dstport", "8472", "nolearning")
	attempt("ip", "address", "replace", first+"/32", "dev", tunnel)
	attempt("ip", "link", "set", tunnel, "up")
}

// hardware is the address of a tunnel's end: every node knows it from the network of that node's pods.
func hardware(first string) string {
	address := net.ParseIP(first).To4()
	return fmt.Sprintf("0e:00:%02x:%02x:%02x:%02x", address[0], address[1], address[2], address[3])
}

func (own *node) writeBridge(network string) {
	path := own.data("agent", "etc", "cni", "net.d", "10-bridge.conflist")
	if network == "" {
		return
	}
	text, _ := json.MarshalIndent(map[string]any{"name": "cbr0", "cniVersion": "1.0.0", "plugins": []any{
		map[string]any{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "mtu": 1450, "hairpinMode": true, "ipam": map[string]any{
			"type": "host-local", "ranges": []any{[]any{map[string]string{"subnet": network}}}, "dataDir": "/var/lib/cni/networks"}},
		map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
	}}, "", " ")
	own.dig(network)
	if there, err := os.ReadFile(path); err == nil && string(there) == string(text) {
		return
	}
	os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	pods := own.one("cluster-cidr", clusterRange)
	own.rule("nat", "POSTROUTING", "-s", pods, "!", "-d", pods, "-m", "comment", "--comment", "flanneld masq", "-j", "MASQUERADE")
	own.rule("filter", "FORWARD", "-s", pods, "-m", "comment", "--comment", "flanneld forward", "-j", "ACCEPT")
	own.rule("filter", "FORWARD", "-d", pods, "-m", "comment", "--comment", "flanneld forward", "-j", "ACCEPT")
	if err := write(path, text); err != nil {
		say("error", err.Error())
	}
}

func (own *node) rule(table, chain string, rule ...string) {
	if _, err := own.output("iptables", append([]string{"-w", "-t", table, "-C", chain}, rule...)...); err == nil {
		return
	}
	if _, err := own.output("iptables", append([]string{"-w", "-t", table, "-A", chain}, rule...)...); err != nil {
		say("error", strings.TrimSpace(err.Error()))
	}
}

func attempt(words ...string) bool {
	text, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		say("warning", strings.Join(words, " ")+": "+string(text))
	}
	return err == nil
}
