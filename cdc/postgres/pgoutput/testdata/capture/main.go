// Command capture runs the scripts of testdata/captures against a real server and stores what the server sends.
//
//	go run ./testdata/capture "postgres://user@127.0.0.1/db" testdata/captures/*
//	go test . -rewrite
//
// The server needs wal_level=logical, logical_decoding_work_mem=64kB and max_prepared_transactions above 0, the user the
// right to do everything, and the database nothing that is still needed. A capture is the CopyData contents in order,
// each after its length as a big-endian uint32: all XLogData, and the one keepalive that ended the capture.
//
// A script has one statement per line. Everything before "-- start" runs before the slot is made. "b: " in front of a
// statement runs it in a second session, "-- wait X" blocks until a message of kind X has come.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
)

func main() {
	for _, script := range os.Args[2:] {
		if err := capture(context.Background(), os.Args[1], script); err != nil {
			log.Fatalf("capture %s: %v", script, err)
		}
	}
}

type session struct {
	a, b, repl *pgconn.PgConn
	out        []byte
}

func capture(ctx context.Context, url, script string) error {
	text, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	options, lines := parse(string(text))
	var s session
	for _, c := range []struct {
		conn  **pgconn.PgConn
		param string
	}{{&s.a, ""}, {&s.b, ""}, {&s.repl, "replication=database"}} {
		conn, err := pgconn.Connect(ctx, url+"?"+c.param)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		*c.conn = conn
	}
	for _, line := range lines {
		if err := s.run(ctx, line, options); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	if err := s.drain(ctx); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(filepath.Dir(script), "..", filepath.Base(script)+".bin"), s.out, 0o644)
}

// parse finds the one directive of the file: its arguments become plugin options, its input the script.
func parse(text string) (options []string, lines []string) {
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "----":
			return options, lines
		case inside && line != "":
			lines = append(lines, line)
		case strings.HasPrefix(line, "capture "):
			inside = true
			for _, arg := range strings.Fields(line)[1:] {
				name, value, _ := strings.Cut(arg, "=")
				options = append(options, fmt.Sprintf("%s '%s'", name, value))
			}
		}
	}
	return options, lines
}

func (s *session) run(ctx context.Context, line string, options []string) error {
	switch {
	case line == "-- start":
		return s.start(ctx, options)
	case strings.HasPrefix(line, "-- wait "):
		return s.receive(ctx, func(e pgoutput.Envelope) bool {
			return e.Kind == pgoutput.XLogData && e.Payload[0] == line[len("-- wait ")]
		})
	case strings.HasPrefix(line, "b: "):
		_, err := s.b.Exec(ctx, line[len("b: "):]).ReadAll()
		return err
	}
	_, err := s.a.Exec(ctx, line).ReadAll()
	return err
}

func (s *session) start(ctx context.Context, options []string) error {
	create := "CREATE_REPLICATION_SLOT capture TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing', TWO_PHASE)"
	if !strings.Contains(strings.Join(options, " "), "two_phase") {
		create = strings.Replace(create, ", TWO_PHASE", "", 1)
	}
	if _, err := s.repl.Exec(ctx, create).ReadAll(); err != nil {
		return err
	}
	options = append(options, "publication_names 'capture'", "messages 'true'")
	query := "START_REPLICATION SLOT capture LOGICAL 0/0 (" + strings.Join(options, ", ") + ")"
	s.repl.Frontend().SendQuery(&pgproto3.Query{String: query})
	return s.repl.Frontend().Flush()
}

// drain receives until the server has nothing left to send.
func (s *session) drain(ctx context.Context) error {
	res, err := s.a.Exec(ctx, "select pg_current_wal_flush_lsn()").ReadAll()
	if err != nil {
		return err
	}
	end, err := pgoutput.ParseLSN(string(res[0].Rows[0][0]))
	if err != nil {
		return err
	}
	return s.receive(ctx, func(e pgoutput.Envelope) bool {
		return e.Kind == pgoutput.Keepalive && e.WALEnd >= end
	})
}

func (s *session) receive(ctx context.Context, last func(pgoutput.Envelope) bool) error {
	s.repl.Frontend().Send(&pgproto3.CopyData{Data: pgoutput.AppendStatusUpdate(nil, 1, 1, 1, 0, true)})
	if err := s.repl.Frontend().Flush(); err != nil {
		return err
	}
	for {
		msg, err := s.repl.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyData:
			e, err := pgoutput.ParseCopyData(msg.Data)
			if err != nil {
				return err
			}
			done := last(e)
			if e.Kind == pgoutput.XLogData || done {
				s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(msg.Data)))
				s.out = append(s.out, msg.Data...)
			}
			if done {
				return nil
			}
			if e.Kind == pgoutput.Keepalive { // ask again until the position is reached
				s.repl.Frontend().Send(&pgproto3.CopyData{Data: pgoutput.AppendStatusUpdate(nil, 1, 1, 1, 0, true)})
				if err := s.repl.Frontend().Flush(); err != nil {
					return err
				}
			}
		}
	}
}
