package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

// deltaRow is one frame of the state log, as docs/formats/delta.md has it.
type deltaRow struct {
	Offset     int64  `json:"offset"`
	Pipeline   string `json:"pipeline"`
	Checkpoint uint64 `json:"checkpoint"`
	Previous   uint64 `json:"previous"`
	Records    uint64 `json:"records"`
	Meta       uint64 `json:"meta_bytes"`
	Outbox     uint64 `json:"outbox_bytes"`
	Bytes      int64  `json:"bytes"`           // of the whole frame
	Table      string `json:"table,omitempty"` // the file beside the log that has the records
	TableBytes int64  `json:"table_bytes,omitempty"`
	Digest     string `json:"digest"`

	tableDigest [16]byte
}

// deltaRecord is one record of a frame.
type deltaRecord struct {
	Op    string `json:"op"`
	State uint32 `json:"state"`
	Key   string `json:"key"`   // hexadecimal, whole
	Value string `json:"value"` // hexadecimal, the beginning
}

// debugDelta reads what package disk wrote from the description of its bytes and not with its code, so that it still
// reads a log which that code refuses. Every byte is checked.
func (p *program) debugDelta(_ context.Context, c *cli.Call) error {
	f, err := os.Open(c.Arg(0))
	if err != nil {
		return errs.New(errs.BadFlag, "open %s: %v", c.Arg(0), err).Because(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var only uint64
	if text := c.Text("checkpoint"); text != "" {
		if only, err = strconv.ParseUint(text, 10, 64); err != nil {
			return errs.New(errs.BadFlag, "--checkpoint %s is not a number", text).Because(err)
		}
	}
	var rows []deltaRow
	var records []deltaRecord
	var damaged error
	for at := int64(0); at < info.Size(); {
		row, body, err := deltaFrame(io.NewSectionReader(f, at, info.Size()-at))
		if err == nil && only > 0 && row.Checkpoint == only {
			if row.Table == "" {
				err = deltaRecords(body, c.Int("bytes"), &records)
			} else {
				err = deltaTable(filepath.Join(filepath.Dir(c.Arg(0)), row.Table), row, c.Int("bytes"), &records)
			}
		}
		if err != nil {
			damaged = errs.New(errs.StateLogDamaged, "%s, the frame at offset %d: %v", c.Arg(0), at, err).Because(err).
				WithHint("at the end of the newest file that is the rest of a write which a crash cut off, and does no harm")
			break
		}
		row.Offset = at
		rows = append(rows, row)
		at += row.Bytes
	}
	if only > 0 {
		err = cli.PrintList(c, cli.List[deltaRecord]{
			Rows: records, Name: func(r deltaRecord) string { return r.Key }, Empty: "no records",
			Columns: []cli.Column[deltaRecord]{
				{Head: "OPERATION", Cell: func(r deltaRecord) string { return r.Op }},
				{Head: "STATE", Right: true, Cell: func(r deltaRecord) string { return fmt.Sprint(r.State) }},
				{Head: "KEY", Cell: func(r deltaRecord) string { return r.Key }},
				{Head: "VALUE", Cell: func(r deltaRecord) string { return r.Value }},
			},
		})
		return errors.Join(damaged, err)
	}
	number := func(head string, of func(deltaRow) uint64) cli.Column[deltaRow] {
		return cli.Column[deltaRow]{Head: head, Right: true, Cell: func(r deltaRow) string { return fmt.Sprint(of(r)) }}
	}
	err = cli.PrintList(c, cli.List[deltaRow]{
		Rows: rows, Name: func(r deltaRow) string { return fmt.Sprint(r.Offset) }, Empty: "no frames",
		Columns: []cli.Column[deltaRow]{
			number("OFFSET", func(r deltaRow) uint64 { return uint64(r.Offset) }),
			{Head: "PIPELINE", Cell: func(r deltaRow) string { return r.Pipeline }},
			number("CHECKPOINT", func(r deltaRow) uint64 { return r.Checkpoint }),
			number("PREVIOUS", func(r deltaRow) uint64 { return r.Previous }),
			number("RECORDS", func(r deltaRow) uint64 { return r.Records }),
			number("META", func(r deltaRow) uint64 { return r.Meta }),
			number("OUTBOX", func(r deltaRow) uint64 { return r.Outbox }),
			number("BYTES", func(r deltaRow) uint64 { return uint64(r.Bytes) }),
			number("TABLE", func(r deltaRow) uint64 { return uint64(r.TableBytes) }),
			{Head: "DIGEST", Cell: func(r deltaRow) string { return r.Digest[:8] }},
		},
	})
	return errors.Join(damaged, err)
}

// deltaHead is the length of a head's payload without runs and name.
const deltaHead = 128

var errDelta = errors.New("it does not fit together")

// deltaFrame reads one frame and compares its digest.
func deltaFrame(in *io.SectionReader) (deltaRow, []byte, error) {
	format := record.Format{Magic: record.Magic{'W', 'D', 'L', 'H'}, Version: 1, Limit: recordLimit}
	head, err := format.Read(in)
	if err != nil {
		return deltaRow{}, nil, err
	}
	p := head.Payload
	if len(p) < deltaHead {
		return deltaRow{}, nil, record.ErrTorn
	}
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(p[at:]) }
	row := deltaRow{Checkpoint: u64(4), Previous: u64(12), Meta: u64(44), Outbox: u64(52), Records: u64(60), Digest: hex.EncodeToString(p[76:92])}
	length, runs := u64(36), uint64(binary.LittleEndian.Uint32(p[124:]))
	if n := u64(92); n != 0 {
		row.Table, row.TableBytes, row.tableDigest = fmt.Sprintf("%012d.table", n), int64(u64(100)), [16]byte(p[108:])
	}
	if 8*runs > uint64(len(p)-deltaHead) {
		return deltaRow{}, nil, record.ErrTorn
	}
	row.Pipeline = string(p[deltaHead+8*runs:])
	from, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		return deltaRow{}, nil, err
	}
	if length > uint64(in.Size()-from) {
		return deltaRow{}, nil, fmt.Errorf("%w: checkpoint %d of %q has a body of %d bytes, %d are here", record.ErrTorn, row.Checkpoint, row.Pipeline, length, in.Size()-from)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return deltaRow{}, nil, err
	}
	whole := body
	if row.Table != "" {
		whole = append(bytes.Clone(body), row.tableDigest[:]...)
	}
	if sum := xxh3.Hash128(whole).Bytes(); !bytes.Equal(sum[:], p[76:92]) {
		return deltaRow{}, nil, fmt.Errorf("checkpoint %d of %q: the digest of its body differs", row.Checkpoint, row.Pipeline)
	}
	row.Bytes = from + int64(length)
	return row, body, nil
}

// deltaRecords adds the records in a body.
func deltaRecords(body []byte, show int, out *[]deltaRecord) error {
	format := record.Format{Magic: record.Magic{'W', 'D', 'L', 'P'}, Version: 1, Limit: 1 << 30}
	for len(body) > 0 {
		piece, rest, err := format.Decode(body)
		if err != nil {
			return err
		}
		body = rest
		p := piece.Payload
		if len(p) == 0 || p[0] != 'R' && p[0] != 'r' {
			continue
		}
		for p = p[1:]; len(p) > 0; {
			op := p[0]
			key, k := binary.Uvarint(p[1:])
			value, v := binary.Uvarint(p[1+max(k, 0):])
			if k <= 0 || v <= 0 || op < 1 || op > 3 || key < 6 || key > uint64(len(p)-1-k-v) || value > uint64(len(p)-1-k-v)-key {
				return errDelta
			}
			p = p[1+k+v:]
			*out = append(*out, newDeltaRecord(op, p[:key], p[key:key+value], show))
			p = p[key+value:]
		}
	}
	return nil
}

func newDeltaRecord(op byte, key, value []byte, show int) deltaRecord {
	r := deltaRecord{Op: []string{"set", "delete", "delete-below"}[op-1], State: binary.BigEndian.Uint32(key[2:]),
		Key: hex.EncodeToString(key), Value: hex.EncodeToString(value[:min(len(value), show)])}
	if len(value) > show {
		r.Value += "…"
	}
	return r
}

// deltaTable adds the records of a frame's table, which is one of Pebble's, and compares its digest.
func deltaTable(path string, row deltaRow, show int, out *[]deltaRecord) (err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("its table %s is not there: it goes when the state has its records on disk", path)
	}
	if err != nil {
		return err
	}
	if int64(len(b)) != row.TableBytes || xxh3.Hash128(b).Bytes() != row.tableDigest {
		return fmt.Errorf("the digest of its table %s differs", path)
	}
	f, err := vfs.Default.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	options := pebble.Options{}
	options.EnsureDefaults()
	table, err := sstable.NewReader(context.Background(), readable, options.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	const space = 4 // the pipeline's number, in front of each key
	deletes, err := table.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil {
		return err
	}
	if deletes != nil {
		defer deletes.Close()
		for span, err := deletes.First(); span != nil || err != nil; span, err = deletes.Next() {
			if err != nil {
				return err
			}
			*out = append(*out, newDeltaRecord(3, span.End[space:], nil, show))
		}
	}
	it, err := table.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	for kv := it.First(); kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		op := byte(1)
		if kv.Kind() == pebble.InternalKeyKindDelete {
			op = 2
		}
		*out = append(*out, newDeltaRecord(op, kv.K.UserKey[space:], value, show))
	}
	return errors.Join(it.Error(), it.Close())
}
