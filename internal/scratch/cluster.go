package scratch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// settingsFile is included by the postgresql.conf of every cluster and rewritten when a server is configured.
const settingsFile = "weir.conf"

// clusterLayout is part of the name of a prepared cluster and rises when initCluster makes something else.
const clusterLayout = 1

// newCluster makes a fresh data directory. With a place for prepared clusters it copies one from there, because initdb
// takes most of a second and a copy a tenth of that; without, nothing stays on the machine.
func (p *Programs) newCluster(ctx context.Context, dataDir, prepared string) error {
	if prepared == "" {
		if err := os.Mkdir(dataDir, 0o700); err != nil {
			return err
		}
		return p.initCluster(ctx, dataDir)
	}
	// The owner is part of the name: a cache can be shared by root, whose servers run as postgres, and others.
	prepared = filepath.Join(prepared, fmt.Sprintf("cluster-%s-%d-%d", p.Exact, clusterLayout, p.account.uid))
	fill := func(dir string) error { return p.initCluster(ctx, dir) }
	if err := Once(ctx, prepared, fill); err != nil {
		return fmt.Errorf("prepare a cluster of Postgres %s: %w", p.Exact, err)
	}
	all := func(string) bool { return true }
	if err := copyTree(p.account, prepared, dataDir, all); err != nil {
		return fmt.Errorf("copy the prepared cluster %s: %w", prepared, err)
	}
	return renewIdentity(dataDir)
}

func (p *Programs) initCluster(ctx context.Context, dir string) error {
	if err := p.account.own(dir); err != nil {
		return err
	}
	cmd := p.account.command("/", filepath.Join(p.Bin, "initdb"), "-D", dir, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := runUntil(ctx, cmd); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, lastLines(out, 10))
	}
	conf, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "\ninclude_if_exists = '%s'\n", settingsFile)
	return errors.Join(err, conf.Close())
}

// runUntil runs a program of a session of its own and kills it with its children when ctx ends.
func runUntil(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	return out.Bytes(), err
}

// copyTree copies a data directory for the account. keep is asked for every path relative to src. Files may vanish
// while a running server is copied; what its recovery needs does not.
func copyTree(acct account, src, dst string, keep func(rel string) bool) error {
	return filepath.WalkDir(src, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != src {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if !keep(rel) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		to := filepath.Join(dst, rel)
		switch {
		case entry.IsDir():
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
		case entry.Type().IsRegular():
			if err := copyFile(path, to); errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
		default:
			return nil // sockets
		}
		return acct.own(to)
	})
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src) // copy_file_range: shares the blocks where the file system can
	return errors.Join(err, dst.Close())
}

// renewIdentity gives a copied cluster a system identifier of its own. With equal ones a test could not tell that an
// address suddenly leads to another server, and that is a fault weir must notice.
//
// The identifier is the first field of global/pg_control, which ends in a CRC-32C over all fields before it, and is
// repeated behind the 24 bytes of the page header that opens each WAL segment (src/include/catalog/pg_control.h and
// access/xlog_internal.h). The place of the CRC differs between versions and is found by computing it.
func renewIdentity(dataDir string) error {
	control := filepath.Join(dataDir, "global", "pg_control")
	data, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	crc := func(end int) uint32 { return crc32.Checksum(data[:end], crc32.MakeTable(crc32.Castagnoli)) }
	end := 8
	for end+4 < len(data) && binary.LittleEndian.Uint32(data[end:]) != crc(end) {
		end += 4
	}
	if end+4 >= len(data) {
		return fmt.Errorf("renew the system identifier: no checksum in %s", control)
	}
	id := binary.LittleEndian.AppendUint64(nil, rand.Uint64()>>1) // positive also for those who read a signed number
	copy(data, id)
	binary.LittleEndian.PutUint32(data[end:], crc(end))
	if err := overwrite(control, 0, data); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", "0*"))
	if err != nil {
		return err
	}
	for _, segment := range segments {
		if err := overwrite(segment, 24, id); err != nil {
			return err
		}
	}
	return nil
}

func overwrite(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}
