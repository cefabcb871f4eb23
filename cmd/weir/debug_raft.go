package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

// raftRow is one entry of raft's log, as docs/formats/raft.md has it.
type raftRow struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Type  string `json:"type"`
	Bytes int    `json:"bytes"` // of the data
	Entry string `json:"entry"` // the decision and its JSON, else the data as Go writes a string
}

const raftEntryHead = 29 // type, term, index, time, length of the extensions

// debugRaft reads what package raft wrote from the description of its bytes and not with its code, so that it still
// reads a log which that code refuses. Nothing in the directory changes.
func (p *program) debugRaft(_ context.Context, c *cli.Call) error {
	dir := filepath.Join(c.Arg(0), "raft", "log")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.BadFlag, "%s is no state directory: there is no %s", c.Arg(0), dir)
	}
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: silent{}})
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES):
		return errs.New(errs.StateLocked, "the raft log in %s is in use", dir).WithHint("stop the weir that runs on it, or look at a copy of the directory").Because(err)
	case err != nil:
		return errs.New(errs.StateCorrupt, "open the raft log in %s: %v", dir, err).Because(err)
	}
	rows, damaged := raftRows(db, c.Int("bytes"))
	err = cli.PrintList(c, cli.List[raftRow]{
		Rows: rows, Name: func(r raftRow) string { return fmt.Sprint(r.Index) }, Empty: "no entries: a raft snapshot holds everything",
		Columns: []cli.Column[raftRow]{
			{Head: "INDEX", Right: true, Cell: func(r raftRow) string { return fmt.Sprint(r.Index) }},
			{Head: "TERM", Right: true, Cell: func(r raftRow) string { return fmt.Sprint(r.Term) }},
			{Head: "TYPE", Cell: func(r raftRow) string { return r.Type }},
			{Head: "BYTES", Right: true, Cell: func(r raftRow) string { return fmt.Sprint(r.Bytes) }},
			{Head: "ENTRY", Cell: func(r raftRow) string { return r.Entry }},
		},
	})
	return errors.Join(damaged, err, db.Close())
}

// raftRows gives the entries up to the first that is damaged.
func raftRows(db *pebble.DB, show int) (rows []raftRow, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("l"), UpperBound: []byte("m")})
	if err != nil {
		return nil, errs.New(errs.StateCorrupt, "read the raft log: %v", err).Because(err)
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		var row raftRow
		if row, err = raftEntry(it.Value(), show); err != nil {
			err = errs.New(errs.StateCorrupt, "raft entry under the key %x: %v", it.Key(), err).Because(err)
			break
		}
		rows = append(rows, row)
	}
	if ierr := errors.Join(it.Error(), it.Close()); err == nil && ierr != nil {
		err = errs.New(errs.StateCorrupt, "read the raft log: %v", ierr).Because(ierr)
	}
	return rows, err
}

func raftEntry(b []byte, show int) (raftRow, error) {
	format := record.Format{Magic: record.Magic{'W', 'L', 'O', 'G'}, Version: 1, Limit: recordLimit}
	rec, err := format.DecodeOne(b)
	if err != nil {
		return raftRow{}, err
	}
	head := rec.Payload
	if len(head) < raftEntryHead {
		return raftRow{}, record.ErrTorn
	}
	data, extensions := head[raftEntryHead:], binary.LittleEndian.Uint32(head[25:])
	if uint64(extensions) > uint64(len(data)) {
		return raftRow{}, record.ErrTorn
	}
	data = data[extensions:]
	row := raftRow{Term: binary.LittleEndian.Uint64(head[1:]), Index: binary.LittleEndian.Uint64(head[9:]), Bytes: len(data)}
	switch head[0] {
	case 0:
		row.Type = "command"
	case 1:
		row.Type = "no-op"
	case 4:
		row.Type = "barrier"
	case 5:
		row.Type = "configuration"
	default:
		row.Type = fmt.Sprint(head[0])
	}
	if len(data) == 0 {
		return row, nil
	}
	row.Entry = fmt.Sprintf("%q", data)
	if e, err := coordinator.DecodeEntry(data); err == nil {
		// After the record's head and the kind the rest is JSON.
		row.Entry = strings.TrimPrefix(fmt.Sprintf("%T ", e), "coordinator.") + string(data[record.HeaderSize+1:])
	}
	if len(row.Entry) > show {
		row.Entry = strings.ToValidUTF8(row.Entry[:show], "") + "…"
	}
	return row, nil
}

// silent is pebble's logger for one look: what goes wrong comes back as an error.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
