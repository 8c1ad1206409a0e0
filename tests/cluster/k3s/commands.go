package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// tokenCommand makes a token.
func tokenCommand(arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "generate" {
		fmt.Println(randomToken())
		return nil
	}
	return fmt.Errorf("this stand-in only knows 'token generate'")
}

// certificateCommand tells how long the leaves last, or takes them away so that the next start makes new ones.
func certificateCommand(arguments []string) error {
	if len(arguments) == 0 || (arguments[0] != "check" && arguments[0] != "rotate") {
		return fmt.Errorf("No help topic for '%s'", strings.Join(arguments, " "))
	}
	var files []string
	for _, pattern := range []string{"server/tls/*.crt", "server/tls/etcd/*.crt", "agent/pki/kubelet-client-current.pem", "agent/pki/*.crt"} {
		found, _ := filepath.Glob(filepath.Join(defaultData, pattern))
		files = append(files, found...)
	}
	if arguments[0] == "check" {
		return report(files)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "-ca.crt") || strings.HasSuffix(file, "service.crt") {
			continue
		}
		if err := os.Remove(file); err != nil {
			return err
		}
		say("info", "Rotated "+file+"; restart k3s")
	}
	return nil
}

func report(files []string) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "FILENAME\tSUBJECT\tUSAGES\tEXPIRES\tRESIDUAL TIME\tSTATUS")
	for _, file := range files {
		certificate, err := readCertificate(file)
		if err != nil {
			return err
		}
		left, usage, status := time.Until(certificate.NotAfter), "ClientAuth", "OK"
		if certificate.IsCA {
			usage = "CertSign"
		} else if len(namesOf(certificate)) > 0 {
			usage = "ServerAuth"
		}
		if left < 0 {
			status = "EXPIRED"
		} else if left < renewal {
			status = "WARNING"
		}
		expires := certificate.NotAfter.UTC().Format("Jan 02, 2006 15:04 UTC")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d days\t%s\n", filepath.Base(file), certificate.Subject.CommonName, usage, expires, int(left.Hours()/24), status)
	}
	return nil
}
