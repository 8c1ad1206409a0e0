package main

import (
	"crypto/x509/pkix"
	"embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed manifests
var manifests embed.FS

// server is one that keeps its state in SQLite, by kine, or one of several with etcd.
type server struct {
	*settings
	*children
	ca      *authority
	address string
	token   string
}

func serve(found *settings) error {
	root, err := unpack(found.data())
	if err != nil {
		return err
	}
	own := &server{settings: found, children: newChildren(root)}
	if own.address, err = nodeAddress(found, ""); err != nil {
		return err
	}
	if found.is("cluster-reset") {
		return own.etcd().reset()
	}
	if err := own.fetchShared(); err != nil {
		return err
	}
	if own.ca, err = openAuthority(found.data("server", "tls")); err != nil {
		return err
	}
	if err := own.writeTokens(); err != nil {
		return err
	}
	if err := own.startControlPlane(); err != nil {
		return err
	}
	ready()
	say("info", "k3s is up and running")
	go own.deploy()
	if !found.is("disable-agent") {
		node := &node{settings: found, children: own.children, address: own.address, api: "https://127.0.0.1:" + own.port(), ca: own.ca.pem, token: bare(own.token)}
		if err := node.start(); err != nil {
			return err
		}
		go own.mark()
	}
	return own.wait()
}

func (own *server) port() string { return own.one("https-listen-port", apiPort) }

// writeTokens settles the cluster's secret: the configured one, the one of before, or a new one.
func (own *server) writeTokens() error {
	file := own.data("server", "token")
	token, err := own.secret("token")
	if err != nil {
		return err
	}
	before, _ := os.ReadFile(file)
	if token == "" {
		token = strings.TrimSpace(string(before))
	} else if len(before) > 0 && bare(strings.TrimSpace(string(before))) != bare(token) {
		return fmt.Errorf("bootstrap data already found and encrypted with different token")
	}
	if token == "" {
		token = randomToken()
	}
	own.token = "K10" + digest(own.ca.pem) + "::server:" + bare(token)
	agent, err := own.secret("agent-token")
	if err != nil {
		return err
	}
	if agent == "" {
		agent = token
	}
	accounts := fmt.Sprintf("%s,k3s-join,k3s-join,\"system:bootstrappers,k3s:join\"\n", bare(token))
	if bare(agent) != bare(token) {
		accounts += fmt.Sprintf("%s,k3s-agent,k3s-agent,\"system:bootstrappers,k3s:join\"\n", bare(agent))
	}
	for path, text := range map[string]string{
		file:                                own.token + "\n",
		own.data("server", "node-token"):    own.token + "\n",
		own.data("server", "agent-token"):   "K10" + digest(own.ca.pem) + "::node:" + bare(agent) + "\n",
		own.data("server", "cred", "joins"): accounts,
	} {
		if err := write(path, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// startDatastore starts kine or etcd; what the API server has to be told.
func (own *server) startDatastore() ([]string, error) {
	os.MkdirAll(own.data("server", "db"), 0o700)
	if own.many() {
		return own.etcd().begin()
	}
	socket := own.data("server", "kine.sock")
	os.Remove(socket)
	database := "sqlite://" + own.data("server", "db", "state.db") + "?_journal=WAL&cache=shared&_busy_timeout=30000"
	if err := own.start(own.data("server", "logs", "kine.log"), "kine", "--endpoint", database, "--listen-address", "unix://"+socket,
		"--metrics-bind-address", "0"); err != nil {
		return nil, err
	}
	return []string{"--etcd-servers=unix://" + socket}, own.until("kine", func() error { _, err := os.Stat(socket); return err })
}

func (own *server) startControlPlane() error {
	datastore, err := own.startDatastore()
	if err != nil {
		return err
	}
	arguments, err := own.apiArguments(datastore)
	if err != nil {
		return err
	}
	if err := own.start(own.data("server", "logs", "kube-apiserver.log"), "kube-apiserver", append(arguments, own.extra("kube-apiserver")...)...); err != nil {
		return err
	}
	admin, err := own.client("client-admin", "system:admin", "system:masters")
	if err != nil {
		return err
	}
	if err := own.until("the API server", func() error {
		_, err := own.output("kubectl", "--kubeconfig", admin, "get", "--raw", "/readyz")
		return err
	}); err != nil {
		return err
	}
	if err := own.startControllers(); err != nil {
		return err
	}
	if own.many() {
		if err := own.share(admin); err != nil {
			return err
		}
		go own.etcd().prune()
	}
	return own.publish(admin)
}

func (own *server) apiArguments(datastore []string) ([]string, error) {
	tls := own.data("server", "tls")
	host, _ := os.Hostname()
	service := firstOf(own.one("service-cidr", serviceRange))
	names := append([]string{"127.0.0.1", own.address, service, "localhost", host, own.nodeName(), "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain}, own.values["tls-san"]...)
	serving, servingKey, err := own.ca.issue("serving-kube-apiserver", pkix.Name{CommonName: "kube-apiserver"}, unique(names)...)
	if err != nil {
		return nil, err
	}
	kubelet, kubeletKey, err := own.ca.issue("client-kube-apiserver", pkix.Name{CommonName: "system:apiserver", Organization: []string{"system:masters"}})
	if err != nil {
		return nil, err
	}
	if _, _, err := own.ca.issue("service", pkix.Name{CommonName: "service accounts"}); err != nil {
		return nil, err
	}
	issuer := "https://kubernetes.default.svc." + clusterDomain
	return append(datastore,
		"--secure-port="+own.port(), "--bind-address=0.0.0.0", "--advertise-address="+own.address,
		"--tls-cert-file="+serving, "--tls-private-key-file="+servingKey, "--client-ca-file="+filepath.Join(tls, "client-ca.crt"),
		"--kubelet-client-certificate="+kubelet, "--kubelet-client-key="+kubeletKey, "--token-auth-file="+own.data("server", "cred", "joins"),
		"--kubelet-preferred-address-types=InternalIP,Hostname", "--service-account-issuer="+issuer, "--api-audiences="+issuer+",k3s",
		"--service-account-key-file="+filepath.Join(tls, "service.key"), "--service-account-signing-key-file="+filepath.Join(tls, "service.key"),
		"--service-cluster-ip-range="+own.one("service-cidr", serviceRange), "--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--service-node-port-range="+own.one("service-node-port-range", "30000-32767"), "--enable-admission-plugins=NodeRestriction", "--profiling=false",
	), nil
}

func (own *server) startControllers() error {
	tls := own.data("server", "tls")
	controller, err := own.client("client-controller", "system:kube-controller-manager", "")
	if err != nil {
		return err
	}
	scheduler, err := own.client("client-scheduler", "system:kube-scheduler", "")
	if err != nil {
		return err
	}
	elect := fmt.Sprintf("--leader-elect=%t", own.many())
	arguments := []string{
		"--kubeconfig=" + controller, "--bind-address=127.0.0.1", elect, "--use-service-account-credentials", "--allocate-node-cidrs",
		"--cluster-cidr=" + own.one("cluster-cidr", clusterRange), "--service-cluster-ip-range=" + own.one("service-cidr", serviceRange),
		"--root-ca-file=" + filepath.Join(tls, "server-ca.crt"), "--service-account-private-key-file=" + filepath.Join(tls, "service.key"),
		"--cluster-signing-cert-file=" + filepath.Join(tls, "server-ca.crt"), "--cluster-signing-key-file=" + filepath.Join(tls, "server-ca.key"),
	}
	log := own.data("server", "logs", "kube-controller-manager.log")
	if err := own.start(log, "kube-controller-manager", append(arguments, own.extra("kube-controller-manager")...)...); err != nil {
		return err
	}
	arguments = []string{"--kubeconfig=" + scheduler, "--bind-address=127.0.0.1", elect}
	return own.start(own.data("server", "logs", "kube-scheduler.log"), "kube-scheduler", append(arguments, own.extra("kube-scheduler")...)...)
}

// client makes a kubeconfig by certificate; its path.
func (own *server) client(file, user, group string) (string, error) {
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	certificate, key, err := own.ca.issue(file, subject)
	if err != nil {
		return "", err
	}
	path := own.data("server", "cred", strings.TrimPrefix(file, "client-")+".kubeconfig")
	return path, write(path, kubeconfigOf("https://127.0.0.1:"+own.port(), own.ca.pem, certificate, key, ""))
}

// publish puts the administrator's file where k3s puts it.
func (own *server) publish(admin string) error {
	text, err := os.ReadFile(admin)
	if err != nil {
		return err
	}
	path := own.one("write-kubeconfig", adminFile)
	mode, err := strconv.ParseUint(own.one("write-kubeconfig-mode", "600"), 8, 32)
	if err != nil {
		return err
	}
	text, err = inlined(text)
	if err != nil {
		return err
	}
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := write(path, text); err != nil {
		return err
	}
	return os.Chmod(path, os.FileMode(mode))
}

// deploy applies what lies in server/manifests, again when it has changed; this stand-in's own objects come first.
func (own *server) deploy() {
	folder, applied := own.data("server", "manifests"), map[string]string{}
	os.MkdirAll(folder, 0o700)
	own.place("coredns", folder)
	rules := own.data("server", "cred", "joins.yaml")
	if text, err := manifests.ReadFile("manifests/joins.yaml"); err == nil {
		write(rules, text)
	}
	for ; ; time.Sleep(2 * time.Second) {
		files, _ := filepath.Glob(filepath.Join(folder, "*.yaml"))
		for _, file := range append([]string{rules}, files...) {
			text, err := os.ReadFile(file)
			if err != nil || applied[file] == string(text) || exists(file+".skip") {
				continue
			}
			admin := own.data("server", "cred", "admin.kubeconfig")
			if _, err := own.output("kubectl", "--kubeconfig", admin, "apply", "--server-side", "--force-conflicts", "-f", file); err != nil {
				say("error", "Failed to process config: failed to apply "+file+": "+err.Error())
				continue
			}
			applied[file] = string(text)
		}
	}
}

func (own *server) place(name, folder string) {
	path := filepath.Join(folder, name+".yaml")
	for _, list := range own.values["disable"] {
		if contains(strings.Split(list, ","), name) {
			os.Remove(path)
			return
		}
	}
	if text, err := manifests.ReadFile("manifests/" + name + ".yaml"); err == nil {
		write(path, text)
	}
}

// mark labels this node as a server; a kubelet may not label itself so.
func (own *server) mark() {
	admin := own.data("server", "cred", "admin.kubeconfig")
	own.until("this node", func() error {
		_, err := own.output("kubectl", "--kubeconfig", admin, "label", "--overwrite", "node", own.nodeName(),
			"node-role.kubernetes.io/control-plane=true", "node-role.kubernetes.io/master=true")
		return err
	})
}

func firstOf(cidr string) string {
	address, _, err := net.ParseCIDR(cidr)
	if err != nil {
		return ""
	}
	address = address.To4()
	address[3]++
	return address.String()
}

func unique(names []string) []string {
	var kept []string
	for _, name := range names {
		if name != "" && !contains(kept, name) {
			kept = append(kept, name)
		}
	}
	return kept
}
