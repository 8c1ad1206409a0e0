package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// api asks an API server as someone who shows the token.
type api struct {
	address, token string
	client         *http.Client
}

func newAPI(address, token string, ca []byte) *api {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return &api{address, token, &http.Client{Transport: transport, Timeout: 20 * time.Second}}
}

// ask sends a request; the answer's status, and its body in `into` if it is a good one.
func (own *api) ask(method, path string, body, into any) (int, error) {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		text = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, own.address+path, text)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+own.token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := own.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return answer.StatusCode, fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return answer.StatusCode, json.NewDecoder(answer.Body).Decode(into)
}

// authorityOf takes the CA from a server's handshake and holds it against the token's digest, where the token has one.
func authorityOf(address, token string) ([]byte, error) {
	place, err := url.Parse(address)
	if err != nil || place.Host == "" {
		return nil, fmt.Errorf("server %q is no URL", address)
	}
	host := place.Host
	if place.Port() == "" {
		host = net.JoinHostPort(place.Hostname(), apiPort)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	connection, err := tls.DialWithDialer(dialer, "tcp", host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	defer connection.Close()
	chain := connection.ConnectionState().PeerCertificates
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[len(chain)-1].Raw})
	if expected, _, full := strings.Cut(strings.TrimPrefix(token, "K10"), "::"); strings.HasPrefix(token, "K10") && full && expected != digest(ca) {
		return nil, fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", expected, digest(ca))
	}
	return ca, nil
}

// nodeAddress is the configured one, or that by which the server, or else the default route, is reached.
func nodeAddress(found *settings, server string) (string, error) {
	if address := found.one("node-ip", ""); address != "" {
		return strings.Split(address, ",")[0], nil
	}
	target := "192.0.2.1:9" // no packet is sent; the kernel only looks at its routes
	if place, err := url.Parse(server); err == nil && place.Host != "" {
		target = place.Host
	}
	connection, err := net.Dial("udp", target)
	if err != nil {
		return "", fmt.Errorf("no default route: %w; give node-ip", err)
	}
	defer connection.Close()
	return connection.LocalAddr().(*net.UDPAddr).IP.String(), nil
}

// kubeconfigOf is one for a certificate, or for a token.
func kubeconfigOf(address string, ca []byte, certificate, key, token string) []byte {
	user := map[string]string{"token": token}
	if certificate != "" {
		user = map[string]string{"client-certificate": certificate, "client-key": key}
	}
	text, _ := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "default",
		"clusters": []any{map[string]any{"name": "default", "cluster": map[string]string{
			"server": address, "certificate-authority-data": base64.StdEncoding.EncodeToString(ca)}}},
		"contexts": []any{map[string]any{"name": "default", "context": map[string]string{"cluster": "default", "user": "default"}}},
		"users":    []any{map[string]any{"name": "default", "user": user}},
	})
	return text
}

// inlined is a kubeconfig with its files' contents in place of their paths: it works on another machine.
func inlined(text []byte) ([]byte, error) {
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	user := config["users"].([]any)[0].(map[string]any)["user"].(map[string]any)
	for _, name := range []string{"client-certificate", "client-key"} {
		contents, err := os.ReadFile(user[name].(string))
		if err != nil {
			return nil, err
		}
		user[name+"-data"] = base64.StdEncoding.EncodeToString(contents)
		delete(user, name)
	}
	return yaml.Marshal(config)
}
