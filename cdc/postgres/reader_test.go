package postgres

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/pg"
)

// plainRelations takes every table as it describes itself, and counts how often.
type plainRelations struct{ resolved []uint32 }

func (p *plainRelations) resolve(m *pgoutput.RelationMsg, _ *relation) (*relation, *changelog.SchemaChange, []dataflow.StateChange, error) {
	p.resolved = append(p.resolved, m.ID)
	return &relation{msg: m, rel: &changelog.Relation{ID: m.ID, Name: m.Name}}, nil, nil, nil
}
func (p *plainRelations) filterOf(uint32) rowFilter                          { return nil }
func (p *plainRelations) takeNames() error                                   { return nil }
func (p *plainRelations) startOver(uint32) error                             { return nil }
func (p *plainRelations) renewed(uint32) (bool, error)                       { return false, nil }
func (p *plainRelations) reshapes(*pgoutput.RelationMsg) bool                { return false }
func (p *plainRelations) partition(_, _ *pgoutput.RelationMsg, _ bool) error { return nil }

// The few messages of version 1 that the test needs.
func begin(final pg.LSN, xid uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'B'}, uint64(final))
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, 0), xid)
}

func commit(lsn pg.LSN) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'C', 0}, uint64(lsn))
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(lsn)+8), 0)
}

func described(id uint32) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'R'}, id), fmt.Sprintf("s\x00t%d\x00d\x00\x01\x01id\x00", id)...)
	return append(b, 0, 0, 0, 25, 255, 255, 255, 255)
}

func inserted(id uint32, value string) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'I'}, id), 'N', 0, 1, 't')
	return append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
}

// TestTablesAhead: rows that the target's other lanes have are left out, up to where each lane is, and so are transactions
// that a shared stream sends from before our place. What they say of tables counts when a row does.
func TestTablesAhead(t *testing.T) {
	relations := &plainRelations{}
	var got []string
	r := &reader{relations: relations, dec: pgoutput.NewDecoder(1), rels: map[uint32]*relation{}, open: map[uint32]bool{},
		position: 100, emitted: 100, ahead: map[uint32]pg.LSN{1: 208, 2: 308}, level: 308}
	r.emit = func(m dataflow.Message) error {
		for i := range m.Rows.Entries {
			e := &m.Rows.Entries[i]
			it := m.Rows.New(e).Iter()
			_, raw := it.Next()
			got = append(got, fmt.Sprintf("t%d %s", m.Rows.Relation(e).ID, raw[4:]))
		}
		return nil
	}
	for _, payload := range [][]byte{
		begin(50, 4), described(4), inserted(4, "had long ago"), described(3), commit(50),
		begin(200, 5), described(1), inserted(1, "had by lane 1"), described(2), inserted(2, "had by lane 2"), described(3), inserted(3, "first"), commit(200),
		begin(300, 6), inserted(1, "second"), inserted(2, "had too"), inserted(3, "third"), commit(300),
		begin(400, 7), inserted(2, "fourth"), inserted(1, "fifth"), inserted(4, "sixth"), commit(400),
	} {
		if err := r.step(payload); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	if want := "[t3 first t1 second t3 third t2 fourth t1 fifth t4 sixth]"; fmt.Sprint(got) != want {
		t.Errorf("rows %v, want %s", got, want)
	}
	if fmt.Sprint(relations.resolved) != "[3 1 2 4]" {
		t.Errorf("descriptions were looked at in the order %v", relations.resolved)
	}
	if r.ahead != nil {
		t.Error("behind the furthest lane nothing is ahead")
	}
}
