package main

import (
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	etcdClients = "2379"
	etcdPeers   = "2380"
	bootstrap   = "/api/v1/namespaces/kube-public/secrets"
)

// What every server has of the same: who has the server's token gets it from one that runs.
var shared = []string{"server-ca.crt", "server-ca.key", "client-ca.crt", "service.crt", "service.key"}

// etcd is the datastore of a server that is one of several.
type etcd struct {
	*server
	folder string
}

// many says whether there are, or will be, several servers.
func (own *server) many() bool {
	return own.is("cluster-init") || own.one("server", "") != "" || exists(own.data("server", "db", "etcd"))
}

func (own *server) etcd() *etcd { return &etcd{own, own.data("server", "db", "etcd")} }

// fetchShared takes what servers share from one that runs, the first time.
func (own *server) fetchShared() error {
	address := strings.TrimSuffix(own.one("server", ""), "/")
	tls := own.data("server", "tls")
	if address == "" || exists(filepath.Join(tls, "server-ca.key")) {
		return nil
	}
	token, err := own.secret("token")
	if err != nil || token == "" {
		return fmt.Errorf("--token is required")
	}
	var found struct{ Data map[string]string }
	if err := own.until("the server to join", func() error {
		ca, err := authorityOf(address, token)
		if err != nil {
			return err
		}
		_, err = newAPI(address, bare(token), ca).ask("GET", bootstrap+"/k3s-bootstrap", nil, &found)
		return err
	}); err != nil {
		return err
	}
	for _, name := range shared {
		text, err := base64.StdEncoding.DecodeString(found.Data[name])
		if err != nil || len(text) == 0 {
			return fmt.Errorf("the server to join does not tell %s", name)
		}
		if err := write(filepath.Join(tls, name), text); err != nil {
			return err
		}
	}
	return nil
}

// share puts into the datastore what further servers need.
func (own *server) share(admin string) error {
	data := map[string]string{}
	for _, name := range shared {
		text, err := os.ReadFile(own.data("server", "tls", name))
		if err != nil {
			return err
		}
		data[name] = base64.StdEncoding.EncodeToString(text)
	}
	secret := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": "k3s-bootstrap", "namespace": "kube-public"}, "data": data}
	text, _ := json.Marshal(secret)
	file := own.data("server", "cred", "bootstrap.json")
	if err := write(file, text); err != nil {
		return err
	}
	defer os.Remove(file)
	return own.until("kube-public", func() error {
		_, err := own.output("kubectl", "--kubeconfig", admin, "apply", "--server-side", "--force-conflicts", "-f", file)
		return err
	})
}

// begin starts etcd, as a member of the cluster that the server to join is one of; what the API server has to be told.
func (own *etcd) begin() ([]string, error) {
	if exists(own.data("server", "db", "state.db")) && !exists(own.folder) {
		return nil, fmt.Errorf("this stand-in does not turn SQLite into etcd; that needs a real k3s")
	}
	if _, _, err := own.ca.issue("etcd/server", pkix.Name{CommonName: "etcd"}, "127.0.0.1", "localhost", own.address); err != nil {
		return nil, err
	}
	if _, _, err := own.ca.issue("etcd/client", pkix.Name{CommonName: "etcd-client"}); err != nil {
		return nil, err
	}
	cluster, state := own.nodeName()+"="+own.peer(), "new"
	if address := own.one("server", ""); address != "" && !exists(filepath.Join(own.folder, "member")) {
		others, err := own.enter(address)
		if err != nil {
			return nil, err
		}
		cluster, state = others+","+cluster, "existing"
	}
	os.Remove(own.data("server", "db", "reset-flag"))
	pair := []string{"--cert-file=" + own.certificate("server"), "--key-file=" + own.key("server"), "--trusted-ca-file=" + own.trusted(), "--client-cert-auth"}
	for _, one := range pair {
		pair = append(pair, "--peer-"+strings.TrimPrefix(one, "--"))
	}
	arguments := append([]string{
		"--name=" + own.nodeName(), "--data-dir=" + own.folder, "--initial-cluster=" + cluster, "--initial-cluster-state=" + state,
		"--listen-peer-urls=" + own.peer(), "--initial-advertise-peer-urls=" + own.peer(), "--advertise-client-urls=https://" + net.JoinHostPort(own.address, etcdClients),
		"--listen-client-urls=https://127.0.0.1:" + etcdClients + ",https://" + net.JoinHostPort(own.address, etcdClients), "--log-level=warn",
	}, pair...)
	if err := own.start(own.data("server", "logs", "etcd.log"), "etcd", arguments...); err != nil {
		return nil, err
	}
	if err := own.until("etcd", func() error { _, err := own.ctl("", "endpoint", "health"); return err }); err != nil {
		return nil, err
	}
	return []string{
		"--etcd-servers=https://127.0.0.1:" + etcdClients, "--etcd-cafile=" + own.trusted(),
		"--etcd-certfile=" + own.certificate("client"), "--etcd-keyfile=" + own.key("client"),
	}, nil
}

func (own *etcd) peer() string { return "https://" + net.JoinHostPort(own.address, etcdPeers) }

func (own *etcd) certificate(name string) string {
	return own.data("server", "tls", "etcd", name+".crt")
}

func (own *etcd) key(name string) string { return own.data("server", "tls", "etcd", name+".key") }

func (own *etcd) trusted() string { return own.data("server", "tls", "server-ca.crt") }

// ctl asks etcd, this server's own or another's.
func (own *etcd) ctl(endpoint string, words ...string) (string, error) {
	if endpoint == "" {
		endpoint = "https://127.0.0.1:" + etcdClients
	}
	arguments := []string{"--endpoints=" + endpoint, "--cacert=" + own.trusted(), "--cert=" + own.certificate("client"), "--key=" + own.key("client")}
	return own.output("etcdctl", append(arguments, words...)...)
}

type member struct {
	ID       uint64   `json:"ID"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peerURLs"`
}

func (own *etcd) members(endpoint string) ([]member, error) {
	text, err := own.ctl(endpoint, "member", "list", "--write-out=json")
	if err != nil {
		return nil, err
	}
	var found struct{ Members []member }
	return found.Members, json.Unmarshal([]byte(text), &found)
}

// enter makes this server a member; the others as etcd is told of them. One whose start was broken off is one already.
func (own *etcd) enter(address string) (string, error) {
	place, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	endpoint := "https://" + net.JoinHostPort(place.Hostname(), etcdClients)
	var others []string
	err = own.until("etcd of the server to join", func() error {
		there, err := own.members(endpoint)
		if err != nil {
			return err
		}
		others = others[:0]
		known := false
		for _, one := range there {
			switch {
			case one.PeerURLs[0] == own.peer() && one.Name == "":
				known = true
			case one.PeerURLs[0] == own.peer() || one.Name == own.nodeName():
				return fmt.Errorf("etcd cluster join failed: duplicate node name found, please use a unique name for this node")
			default:
				others = append(others, one.Name+"="+one.PeerURLs[0])
			}
		}
		if known {
			return nil
		}
		_, err = own.ctl(endpoint, "member", "add", own.nodeName(), "--peer-urls="+own.peer())
		return err
	})
	return strings.Join(others, ","), err
}

// prune takes a member out whose node has been deleted.
func (own *etcd) prune() {
	admin, seen := own.data("server", "cred", "admin.kubeconfig"), map[string]bool{}
	for ; ; time.Sleep(3 * time.Second) {
		text, err := own.output("kubectl", "--kubeconfig", admin, "get", "nodes", "-o", "name")
		members, wrong := own.members("")
		if err != nil || wrong != nil {
			continue
		}
		there := map[string]bool{}
		for _, name := range strings.Fields(text) {
			there[strings.TrimPrefix(name, "node/")] = true
		}
		known := map[string]bool{}
		for _, one := range members {
			known[one.Name] = true
			if seen[one.Name] && !there[one.Name] && there[own.nodeName()] {
				own.ctl("", "member", "remove", fmt.Sprintf("%x", one.ID))
			}
		}
		for name := range seen {
			if !known[name] && !there[name] {
				delete(seen, name) // gone for good: who comes by this name is a member before it is a node
			}
		}
		for name := range there {
			seen[name] = true
		}
	}
}

// snapshotCommand saves what is in etcd.
func snapshotCommand(arguments []string) error {
	if len(arguments) == 0 || arguments[0] != "save" {
		return fmt.Errorf("this stand-in only knows 'etcd-snapshot save'")
	}
	options := map[string]string{"name": "on-demand", "dir": filepath.Join(defaultData, "server", "db", "snapshots")}
	for index := 1; index+1 < len(arguments); index += 2 {
		options[strings.TrimLeft(arguments[index], "-")] = arguments[index+1]
	}
	found, err := load("server", nil)
	if err != nil {
		return err
	}
	if !exists(found.data("server", "db", "etcd")) {
		return fmt.Errorf("etcd datastore disabled: this server keeps its state in SQLite; copy server/db and server/token")
	}
	root, err := unpack(found.data())
	if err != nil {
		return err
	}
	own := (&server{settings: found, children: newChildren(root)}).etcd()
	os.MkdirAll(options["dir"], 0o700)
	file := filepath.Join(options["dir"], fmt.Sprintf("%s-%s-%d", options["name"], own.nodeName(), time.Now().Unix()))
	text, err := own.ctl("", "snapshot", "save", file)
	if err == nil {
		say("info", "Snapshot "+file+" saved.")
		return nil
	}
	return fmt.Errorf("%w: %s", err, text)
}

// reset makes etcd anew from a snapshot, with this server as its one member, and ends.
func (own *etcd) reset() error {
	flag, snapshot := own.data("server", "db", "reset-flag"), own.one("cluster-reset-restore-path", "")
	if snapshot == "" {
		return fmt.Errorf("this stand-in only resets to a snapshot: cluster-reset-restore-path")
	}
	if exists(flag) {
		return fmt.Errorf("Managed etcd cluster membership was already reset, remove the cluster-reset flag from your configuration and start k3s normally")
	}
	if exists(own.folder) {
		if err := os.Rename(own.folder, fmt.Sprintf("%s-old-%d", own.folder, time.Now().Unix())); err != nil {
			return err
		}
	}
	if _, err := own.output("etcdutl", "restore", snapshot, "--name="+own.nodeName(), "--data-dir="+own.folder,
		"--initial-cluster="+own.nodeName()+"="+own.peer(), "--initial-advertise-peer-urls="+own.peer()); err != nil {
		return err
	}
	if err := write(flag, nil); err != nil {
		return err
	}
	say("info", "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. "+
		"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return nil
}
