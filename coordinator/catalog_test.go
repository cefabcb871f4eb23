package coordinator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

func spec(name string) api.MirrorSpec {
	return api.MirrorSpec{
		Name:   name,
		Source: api.Connection{Name: "shop", URL: "postgres://u:${env:PW}@db/shop"},
		Target: api.Connection{Name: "dw", URL: "postgres://u@dw/dw"},
		Tables: []string{"public.*"}, Options: map[string]string{"b": "2", "a": "1"},
	}
}

// anyEntry draws entries over few names, ids and numbers, so that most runs meet both acceptance and refusal.
func anyEntry() *rapid.Generator[Entry] {
	return rapid.Custom(func(t *rapid.T) Entry {
		id := rapid.SampledFrom([]string{"a1", "b2", "c3", "d4"}).Draw(t, "id")
		small := rapid.Uint64Range(0, 5)
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return PutConnection{api.Connection{Name: "c" + id, URL: "postgres://db/" + id}}
		case 1, 2:
			name := rapid.SampledFrom([]string{"orders", "users", "audit"}).Draw(t, "name")
			if rapid.Bool().Draw(t, "query") {
				return CreatePipeline{ID: id, At: time.Unix(1700000000, 0).UTC(), Query: &api.QuerySpec{Name: name, File: "q.sql", SQL: "SELECT 1;"}}
			}
			return CreatePipeline{ID: id, At: time.Unix(1700000000, 0).UTC(), Mirror: spec(name)}
		case 3:
			if rapid.Bool().Draw(t, "query") {
				name := rapid.SampledFrom([]string{"orders", "users", "audit"}).Draw(t, "name")
				return UpdatePipeline{ID: id, Version: small.Draw(t, "version"), Query: &api.QuerySpec{Name: name, File: "q.sql", SQL: "SELECT 2;"}}
			}
			m := spec(rapid.SampledFrom([]string{"orders", "users", "audit"}).Draw(t, "name"))
			m.Tables = append(m.Tables, "x.y")
			return UpdatePipeline{ID: id, Version: small.Draw(t, "version"), Mirror: m}
		case 4:
			want := rapid.SampledFrom([]api.Desired{api.WantRunning, api.WantPaused, api.WantDeleted, "odd"}).Draw(t, "desired")
			return SetDesired{ID: id, Desired: want, Force: rapid.Bool().Draw(t, "force")}
		case 5, 6:
			return NewGeneration{ID: id}
		case 7:
			return SchemaStep{ID: id, Generation: small.Draw(t, "gen"), N: small.Draw(t, "n"), Step: json.RawMessage(`{"ddl":"x"}`)}
		case 8:
			return Checkpoint{
				ID: id, Generation: small.Draw(t, "gen"), Checkpoint: rapid.Uint64Range(0, 20).Draw(t, "checkpoint"),
				Bytes:  int64(small.Draw(t, "bytes")),
				Digest: fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "digest")),
				Positions: []Position{{
					Source:      rapid.SampledFrom([]string{"s", "t"}).Draw(t, "source"),
					Incarnation: rapid.SampledFrom([]string{"one", "two"}).Draw(t, "incarnation"),
					Position:    small.Draw(t, "position"),
				}},
			}
		default:
			return FinishDelete{ID: id, Generation: small.Draw(t, "gen")}
		}
	})
}

func mustApply(t interface{ Fatal(...any) }, f *fsm, index uint64, e Entry) answer {
	b, err := EncodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Apply(index, b)
	if err != nil {
		t.Fatal(err)
	}
	return got.(answer)
}

func bytesOf(t interface{ Fatal(...any) }, f *fsm) []byte {
	w, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// contentOf leaves out how many entries were applied.
func contentOf(t interface{ Fatal(...any) }, f *fsm) []byte {
	b, err := encodeCatalog(f.mu.catalog, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Two machines that apply the same entries answer and hold the same, also when one of them went through a snapshot at
// any point. What was refused changed nothing.
func TestCatalogIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(anyEntry(), 1, 60).Draw(t, "entries")
		cut := rapid.IntRange(0, len(entries)).Draw(t, "snapshot at")
		one, two := newFSM(), newFSM()
		for i, e := range entries {
			if i == cut {
				restored := newFSM()
				if err := restored.Restore(bytes.NewReader(bytesOf(t, two))); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(bytesOf(t, restored), bytesOf(t, two)) {
					t.Fatal("a restored catalog differs from its original")
				}
				two = restored
			}
			before := contentOf(t, one)
			a, b := mustApply(t, one, uint64(i+1), e), mustApply(t, two, uint64(i+1), e)
			if a.value != b.value || fmt.Sprint(a.refused) != fmt.Sprint(b.refused) {
				t.Fatalf("entry %d: %v on one, %v on the other", i, a, b)
			}
			if a.refused != nil && !bytes.Equal(before, contentOf(t, one)) {
				t.Fatalf("refused entry %#v changed the catalog", e)
			}
		}
		if !bytes.Equal(bytesOf(t, one), bytesOf(t, two)) {
			t.Fatal("the catalogs differ")
		}
	})
}

// I3 one winner, I5 fences are monotone, I7 positions are monotone: judged from outside, by what was accepted.
func TestCatalogInvariants(t *testing.T) {
	type source struct{ id, source, incarnation string }
	var accepted, minted, recreated int
	rapid.Check(t, func(t *rapid.T) {
		f := newFSM()
		generation := map[string]uint64{}
		checkpoint := map[string]uint64{}
		position := map[source]uint64{}
		lastIncarnation := map[[2]string]string{}
		named := map[string]string{}
		version := map[string]uint64{}
		entries := []Entry{
			CreatePipeline{ID: "a1", Mirror: spec("orders")}, NewGeneration{ID: "a1"},
			CreatePipeline{ID: "b2", Mirror: spec("users")}, NewGeneration{ID: "b2"},
		}
		for i, e := range append(entries, rapid.SliceOfN(anyEntry(), 50, 150).Draw(t, "entries")...) {
			// Numbers drawn blindly would be refused most of the time: most are moved to where they just fit or miss.
			switch moved := e.(type) {
			case Checkpoint:
				moved.Checkpoint = checkpoint[moved.ID] + moved.Checkpoint%4
				if moved.Generation > 1 {
					moved.Generation = generation[moved.ID]
				}
				e = moved
			case FinishDelete:
				if moved.Generation > 1 {
					moved.Generation = generation[moved.ID]
				}
				e = moved
			}
			a := mustApply(t, f, uint64(i+1), e)
			if a.refused != nil {
				if _, ok := errs.As(a.refused); !ok {
					t.Fatalf("refusal %v has no code", a.refused)
				}
				continue
			}
			switch e := e.(type) {
			case CreatePipeline:
				if other, taken := named[e.name()]; taken {
					t.Fatalf("name %s belongs to %s and %s", e.name(), other, e.ID)
				}
				named[e.name()] = e.ID
				version[e.ID] = 1
				// The ids of a test return, unlike real ones: what follows is another pipeline.
				recreated++
				delete(generation, e.ID)
				delete(checkpoint, e.ID)
				for s := range position {
					if s.id == e.ID {
						delete(position, s)
					}
				}
				delete(lastIncarnation, [2]string{e.ID, "s"})
				delete(lastIncarnation, [2]string{e.ID, "t"})
			case UpdatePipeline:
				if e.Version != version[e.ID] {
					t.Fatalf("an update for version %d was taken at %d", e.Version, version[e.ID])
				}
				version[e.ID]++
			case NewGeneration:
				got := a.value.(uint64)
				if got <= generation[e.ID] {
					t.Fatalf("generation %d after %d", got, generation[e.ID])
				}
				generation[e.ID] = got
				minted++
			case SchemaStep:
				if e.Generation != generation[e.ID] {
					t.Fatalf("a schema step of generation %d was taken at %d", e.Generation, generation[e.ID])
				}
			case Checkpoint:
				accepted++
				if e.Generation != generation[e.ID] {
					t.Fatalf("a checkpoint of generation %d was taken at %d", e.Generation, generation[e.ID])
				}
				if e.Checkpoint <= checkpoint[e.ID] {
					t.Fatalf("checkpoint %d was taken after %d", e.Checkpoint, checkpoint[e.ID])
				}
				checkpoint[e.ID] = e.Checkpoint
				for _, p := range e.Positions {
					key := [2]string{e.ID, p.Source}
					s := source{e.ID, p.Source, p.Incarnation}
					if lastIncarnation[key] == p.Incarnation && p.Position < position[s] {
						t.Fatalf("position %d was taken after %d", p.Position, position[s])
					}
					lastIncarnation[key], position[s] = p.Incarnation, p.Position
				}
			case FinishDelete:
				for name, id := range named {
					if id == e.ID {
						delete(named, name)
					}
				}
			}
		}
	})
	if accepted < 100 || minted < 250 || recreated < 200 {
		t.Fatalf("the entries drawn prove nothing: %d checkpoints, %d generations, %d creations accepted", accepted, minted, recreated)
	}
}

func TestRefusalsAreNamed(t *testing.T) {
	f := newFSM()
	index := uint64(0)
	do := func(e Entry) answer { index++; return mustApply(t, f, index, e) }
	ok := func(e Entry) any {
		t.Helper()
		a := do(e)
		if a.refused != nil {
			t.Fatalf("%#v: %v", e, a.refused)
		}
		return a.value
	}
	no := func(e Entry, code errs.Code) {
		t.Helper()
		if a := do(e); !errs.Is(a.refused, code) {
			t.Errorf("%#v: %v, want %s", e, a.refused, code)
		}
	}
	secret := spec("leaky")
	secret.Target.URL = "postgres://u:hunter2@dw/dw"

	ok(CreatePipeline{ID: "a", Mirror: spec("orders")})
	no(CreatePipeline{ID: "b", Mirror: spec("orders")}, errs.PipelineExists)
	no(CreatePipeline{ID: "a", Mirror: spec("users")}, errs.PipelineExists)
	no(CreatePipeline{ID: "c", Mirror: spec("no spaces")}, errs.BadFlag)
	no(CreatePipeline{ID: "c", Mirror: secret}, errs.BadURL)
	no(PutConnection{api.Connection{Name: "x", URL: "host=db password=hunter2"}}, errs.BadURL)
	no(UpdatePipeline{ID: "a", Version: 7, Mirror: spec("orders")}, errs.PipelineState)
	no(UpdatePipeline{ID: "a", Version: 1, Mirror: spec("users")}, errs.PipelineState)
	ok(UpdatePipeline{ID: "a", Version: 1, Mirror: spec("orders")})
	no(SetDesired{ID: "zz", Desired: api.WantPaused}, errs.PipelineNotFound)
	ok(SetDesired{ID: "a", Desired: api.WantPaused})
	no(NewGeneration{ID: "a"}, errs.PipelineState)
	ok(SetDesired{ID: "a", Desired: api.WantRunning})
	if g := ok(NewGeneration{ID: "a"}); g != uint64(1) {
		t.Errorf("first generation %v", g)
	}
	ok(Checkpoint{ID: "a", Generation: 1, Checkpoint: 5, Digest: "x", Positions: []Position{{"s", "tl1", 100}}})
	no(Checkpoint{ID: "a", Generation: 1, Checkpoint: 5, Digest: "y"}, errs.PipelineState)
	no(Checkpoint{ID: "a", Generation: 0, Checkpoint: 6}, errs.Fenced)
	no(Checkpoint{ID: "a", Generation: 1, Checkpoint: 6, Positions: []Position{{"s", "tl1", 99}}}, errs.EngineInternal)
	ok(Checkpoint{ID: "a", Generation: 1, Checkpoint: 6, Positions: []Position{{"s", "tl2", 1}}})
	if g := ok(NewGeneration{ID: "a"}); g != uint64(2) {
		t.Errorf("second generation %v", g)
	}
	no(Checkpoint{ID: "a", Generation: 1, Checkpoint: 7}, errs.Fenced)
	no(SchemaStep{ID: "a", Generation: 2, N: 2, Step: json.RawMessage(`{}`)}, errs.PipelineState)
	ok(SchemaStep{ID: "a", Generation: 2, N: 1, Step: json.RawMessage(`{}`)})
	no(FinishDelete{ID: "a", Generation: 2}, errs.PipelineState)
	ok(SetDesired{ID: "a", Desired: api.WantDeleted})
	no(SetDesired{ID: "a", Desired: api.WantRunning}, errs.PipelineState)
	no(CreatePipeline{ID: "b", Mirror: spec("orders")}, errs.PipelineExists) // until its traces are gone
	ok(FinishDelete{ID: "a", Generation: 2})
	ok(CreatePipeline{ID: "b", Mirror: spec("orders")})
}

func TestSchemaStepsAreBounded(t *testing.T) {
	f := newFSM()
	mustApply(t, f, 1, CreatePipeline{ID: "a", Mirror: spec("orders")})
	mustApply(t, f, 2, NewGeneration{ID: "a"})
	for n := range uint64(keptSteps + 10) {
		if a := mustApply(t, f, n+3, SchemaStep{ID: "a", Generation: 1, N: n + 1, Step: json.RawMessage(`{}`)}); a.refused != nil {
			t.Fatal(a.refused)
		}
	}
	f.view(func(c *catalog) {
		r := c.pipelines["a"]
		if r.Steps != keptSteps+10 || len(r.StepLog) != keptSteps || r.StepLog[keptSteps-1].N != r.Steps {
			t.Errorf("%d steps, %d kept", r.Steps, len(r.StepLog))
		}
	})
}

func TestEntriesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEntry().Draw(t, "entry")
		b, err := EncodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeEntry(b)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%#v became %#v, %v", e, got, err)
		}
	})
}

func TestUnknownEntriesAreNotSkipped(t *testing.T) {
	newer := record.Format{Magic: entryFormat.Magic, Version: 2, Limit: 100}
	for name, b := range map[string][]byte{
		"kind":    entryFormat.Append(nil, []byte("\xc8{}")),
		"version": newer.Append(nil, []byte("\x05{}")),
		"field":   entryFormat.Append(nil, []byte("\x05{\"id\":\"a\",\"priority\":9}")),
	} {
		if _, err := newFSM().Apply(1, b); !errors.Is(err, ErrUnknownEntry) {
			t.Errorf("unknown %s: %v", name, err)
		}
	}
	if _, err := EncodeEntry(PutConnection{api.Connection{URL: string(make([]byte, 2<<20))}}); !errors.Is(err, errEntryTooLarge) {
		t.Errorf("an entry above the limit: %v", err)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	f := newFSM()
	mustApply(t, f, 1, PutConnection{api.Connection{Name: "c", URL: "postgres://db/x"}})
	mustApply(t, f, 2, CreatePipeline{ID: "a", Mirror: spec("orders")})
	whole := bytesOf(t, f)
	if _, err := func() (uint64, error) { _, n, err := decodeCatalog(bytes.NewReader(whole)); return n, err }(); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 4
		if err := newFSM().Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d was changed and nobody noticed", i)
		}
		if err := newFSM().Restore(bytes.NewReader(whole[:i])); err == nil {
			t.Fatalf("cut after %d bytes and nobody noticed", i)
		}
	}
	// Objects that are whole each, but not the ones the head tells of.
	_, rest, err := catalogHead.Decode(whole)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, err := catalogObject.Decode(rest)
	if err != nil {
		t.Fatal(err)
	}
	head := whole[:len(whole)-len(rest)-record.HeaderSize-len(first.Payload)]
	swapped := append(bytes.Clone(head), catalogObject.Append(nil, bytes.Replace(first.Payload, []byte("db/x"), []byte("db/y"), 1))...)
	keep := newFSM()
	mustApply(t, keep, 1, CreatePipeline{ID: "k", Mirror: spec("kept")})
	before := bytesOf(t, keep)
	if err := keep.Restore(bytes.NewReader(append(swapped, rest...))); !errors.Is(err, record.ErrChecksum) {
		t.Fatalf("a swapped object: %v", err)
	}
	if !bytes.Equal(before, bytesOf(t, keep)) {
		t.Fatal("a refused restore changed the catalog")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range []Entry{CreatePipeline{ID: "a", Mirror: spec("orders")}, NewGeneration{ID: "a"}, Checkpoint{ID: "a"}} {
		b, err := EncodeEntry(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		again, err := EncodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeEntry(again); err != nil || got.kind() != e.kind() {
			t.Fatalf("%#v: %v", e, err)
		}
	})
}

func FuzzDecodeCatalog(f *testing.F) {
	m := newFSM()
	mustApply(f, m, 1, CreatePipeline{ID: "a", Mirror: spec("orders")})
	f.Add(bytesOf(f, m))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, applied, err := decodeCatalog(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := encodeCatalog(c, applied)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := decodeCatalog(bytes.NewReader(again)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHoldsPassword(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://u@h/db":                         false,
		"postgres://u:p@h/db":                       true,
		"postgres://u:${secret:x}@h/db":             false,
		"postgres://u:${env:X}@h:5432/db?sslmode=a": false,
		"postgres://u:p@ss/w@h/db":                  true,
		"postgres://h/db?user=u&password=p":         true,
		"postgres://h/db?password=${env:X}":         false,
		"postgres://h:5432/db":                      false,
		"host=h user=u password=p":                  true,
		"host=h user=u password='${secret:x}'":      false,
		"host=h user=u":                             false,
		"":                                          false,
	} {
		if got := holdsPassword(url); got != want {
			t.Errorf("holdsPassword(%q) = %v", url, got)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"orders", "users", "mirror_shop"}
	for word, want := range map[string]string{"order": "orders", "mirror_shp": "mirror_shop", "usres": "users", "zebra": "", "": ""} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
