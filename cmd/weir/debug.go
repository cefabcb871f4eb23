package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/parser"
)

func (p *program) debugSQL(_ context.Context, c *cli.Call) error {
	text, err := readLimited(c.Arg(0), parser.MaxBytes)
	if err != nil {
		return err
	}
	script, err := parser.Parse(c.Arg(0), string(text))
	if err != nil {
		return err
	}
	hidePasswords(script)
	_, err = io.WriteString(c.Out, parser.Print(script))
	return err
}

// hidePasswords puts references in the place of passwords, as a mirror of the file would be stored.
func hidePasswords(script *parser.Script) {
	store := secrets.Open(env.Real(nil), secrets.Options{}) // in memory, and thrown away
	hide := func(connection, key string, value *string) {
		hidden, err := store.CaptureOption(connection, key, *value)
		if err != nil {
			hidden = pg.Redact(*value) // not a connection string: where its password ends is a guess
		}
		*value = hidden
	}
	for _, s := range script.Statements {
		switch s := s.(type) {
		case *parser.Set:
			hide("set", s.Key.Text, &s.Value.Text)
		case *parser.CreateConnection:
			for i := range s.Properties {
				hide(s.Name.Text, s.Properties[i].Key.Text, &s.Properties[i].Value.Text)
			}
		case *parser.CreateMirror:
			for _, end := range []*parser.Endpoint{&s.From, &s.To} {
				if end.URL.Text != "" {
					hide(s.Name.Text, "url", &end.URL.Text)
				}
			}
			for i := range s.Properties {
				hide(s.Name.Text, s.Properties[i].Key.Text, &s.Properties[i].Value.Text)
			}
		default:
			name := "statement"
			if table, ok := s.(*parser.CreateTable); ok {
				name = table.Name.Last().Text
			}
			parser.Options(s, func(key string, value *string) { hide(name, key, value) })
		}
	}
}

// recordRow is one record of a file.
type recordRow struct {
	Offset  int64  `json:"offset"`
	Magic   string `json:"magic"`
	Version uint16 `json:"version"`
	Bytes   int    `json:"bytes"`
	Payload string `json:"payload"` // the beginning, as Go writes a string
}

// recordLimit is more than any format's own limit.
const recordLimit = 256 << 20

func (p *program) debugRecords(_ context.Context, c *cli.Call) error {
	f, err := os.Open(c.Arg(0))
	if err != nil {
		return errs.New(errs.BadFlag, "open %s: %v", c.Arg(0), err).Because(err)
	}
	defer f.Close()
	var rows []recordRow
	var damaged error
	for offset := int64(0); ; {
		row, err := nextRecord(f, offset, c.Int("bytes"))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			e := errs.New(errs.StateCorrupt, "%s, offset %d: %v", c.Arg(0), offset, err).Because(err)
			if offset == 0 {
				e.WithHint("it may be a file of another kind: raft's log is read by weir debug raft STATE")
			}
			damaged = e
			break
		}
		rows = append(rows, row)
		offset += int64(record.HeaderSize + row.Bytes)
	}
	err = cli.PrintList(c, cli.List[recordRow]{
		Rows: rows, Name: func(r recordRow) string { return fmt.Sprint(r.Offset) }, Empty: "no records",
		Columns: []cli.Column[recordRow]{
			{Head: "OFFSET", Right: true, Cell: func(r recordRow) string { return fmt.Sprint(r.Offset) }},
			{Head: "MAGIC", Cell: func(r recordRow) string { return r.Magic }},
			{Head: "VERSION", Right: true, Cell: func(r recordRow) string { return fmt.Sprint(r.Version) }},
			{Head: "BYTES", Right: true, Cell: func(r recordRow) string { return fmt.Sprint(r.Bytes) }},
			{Head: "PAYLOAD", Cell: func(r recordRow) string { return r.Payload }},
		},
	})
	return errors.Join(damaged, err)
}

// nextRecord reads any format: the magic says which.
func nextRecord(f *os.File, offset int64, show int) (recordRow, error) {
	var head [record.HeaderSize]byte
	if _, err := f.ReadAt(head[:4], offset); err != nil {
		if errors.Is(err, io.EOF) {
			if info, serr := f.Stat(); serr == nil && info.Size() > offset {
				return recordRow{}, record.ErrTorn
			}
		}
		return recordRow{}, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return recordRow{}, err
	}
	format := record.Format{Magic: record.Magic(head[:4]), Version: ^uint16(0), Limit: recordLimit}
	r, err := format.Read(f)
	if err != nil {
		return recordRow{}, err
	}
	payload := fmt.Sprintf("%q", r.Payload[:min(show, len(r.Payload))])
	if show < len(r.Payload) {
		payload += "…"
	}
	return recordRow{Offset: offset, Magic: printable(head[:4]), Version: r.Version, Bytes: len(r.Payload), Payload: payload}, nil
}

func printable(b []byte) string {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("%08x", binary.BigEndian.Uint32(b))
		}
	}
	return string(b)
}

// docsMarkdown writes what is generated below docs. Pages of codes that are gone are removed.
func (p *program) docsMarkdown(_ context.Context, c *cli.Call) error {
	dir := c.Arg(0)
	pages := map[string]string{"cli.md": c.App.Markdown(), "options.md": options.Markdown(), "errors/README.md": errs.IndexMarkdown()}
	for _, e := range errs.Catalog() {
		pages["errors/"+string(e.Code)+".md"] = e.Markdown()
	}
	if old, err := filepath.Glob(filepath.Join(dir, "errors", "W*.md")); err == nil {
		for _, path := range old {
			if _, keep := pages["errors/"+filepath.Base(path)]; !keep {
				if err := os.Remove(path); err != nil {
					return err
				}
			}
		}
	}
	return writePages(dir, pages)
}

func (p *program) docsMan(_ context.Context, c *cli.Call) error {
	return writePages(c.Arg(0), c.App.Man())
}

func writePages(dir string, pages map[string]string) error {
	for name, text := range pages {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
