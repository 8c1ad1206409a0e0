package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

const (
	leafLife = 365 * 24 * time.Hour
	renewal  = 120 * 24 * time.Hour
)

// authority is the cluster's own CA, for servers and clients alike.
type authority struct {
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func openAuthority(folder string) (*authority, error) {
	ca := &authority{folder: folder}
	if !exists(filepath.Join(folder, "server-ca.key")) {
		if err := ca.found(); err != nil {
			return nil, err
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "server-ca.crt"), filepath.Join(folder, "server-ca.key"))
	if err != nil {
		return nil, err
	}
	ca.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	if ca.certificate, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return nil, err
	}
	ca.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return ca, nil
}

func (ca *authority) found() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificate(pkix.Name{CommonName: fmt.Sprintf("k3s-server-ca@%d", time.Now().Unix())}, 10*leafLife)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, name := range []string{"server-ca.crt", "client-ca.crt"} {
		if err := write(filepath.Join(ca.folder, name), text); err != nil {
			return err
		}
	}
	return writeKey(filepath.Join(ca.folder, "server-ca.key"), key)
}

// issue makes a leaf unless there is one with these names that lasts long enough; returns the paths of certificate and key.
func (ca *authority) issue(file string, subject pkix.Name, names ...string) (string, string, error) {
	path, keyPath := filepath.Join(ca.folder, file+".crt"), filepath.Join(ca.folder, file+".key")
	sort.Strings(names)
	if old, err := readCertificate(path); err == nil && time.Until(old.NotAfter) > renewal && strings.Join(namesOf(old), " ") == strings.Join(names, " ") {
		return path, keyPath, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := certificate(subject, leafLife)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(names) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if strings.HasPrefix(file, "etcd/") { // members are each other's clients
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		}
	}
	for _, name := range names {
		if address := net.ParseIP(name); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, &key.PublicKey, ca.key)
	if err != nil {
		return "", "", err
	}
	// The CA follows: who joins learns it from the handshake and holds it against the token's digest.
	chain := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), ca.pem...)
	if err := writeKey(keyPath, key); err != nil {
		return "", "", err
	}
	return path, keyPath, write(path, chain)
}

// digest is what a token says of the CA.
func digest(ca []byte) string {
	sum := sha256.Sum256(ca)
	return hex.EncodeToString(sum[:])
}

func certificate(subject pkix.Name, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func namesOf(certificate *x509.Certificate) []string {
	names := append([]string{}, certificate.DNSNames...)
	for _, address := range certificate.IPAddresses {
		names = append(names, address.String())
	}
	sort.Strings(names)
	return names
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return write(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}
