package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// importImages brings the archives of agent/images into containerd, each one again when it has changed.
func (own *node) importImages() error { return own.importNew(map[string]string{}) }

func (own *node) watchImages() {
	seen := map[string]string{}
	for _, file := range own.archives() {
		seen[file] = stamp(file)
	}
	for ; ; time.Sleep(2 * time.Second) {
		if err := own.importNew(seen); err != nil {
			say("error", "Failed to process image event: "+err.Error())
		}
	}
}

func (own *node) archives() []string {
	var found []string
	for _, ending := range []string{"tar", "tar.gz", "tgz", "tar.zst"} {
		files, _ := filepath.Glob(own.data("agent", "images", "*."+ending))
		found = append(found, files...)
	}
	return found
}

func (own *node) importNew(seen map[string]string) error {
	for _, file := range own.archives() {
		now := stamp(file)
		if now == "" || seen[file] == now {
			continue
		}
		if err := own.importFile(file); err != nil {
			return err
		}
		say("info", "Imported images from "+file)
		seen[file] = now
	}
	return nil
}

func (own *node) importFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var plain io.Reader = file
	if strings.HasSuffix(path, ".zst") {
		decoder, err := zstd.NewReader(file)
		if err != nil {
			return err
		}
		defer decoder.Close()
		plain = decoder
	} else if strings.HasSuffix(path, "gz") {
		if plain, err = gzip.NewReader(file); err != nil {
			return err
		}
	}
	command := exec.Command(filepath.Join(own.root, "bin", "ctr"), "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", "-")
	command.Env = append(os.Environ(), surroundings(own.root)...)
	command.Stdin = plain
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("import of %s: %w: %s", path, err, text)
	}
	return nil
}

func stamp(path string) string {
	about, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(about.Size(), about.ModTime().UnixNano())
}
