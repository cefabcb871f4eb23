package secrets

import (
	"fmt"
	"log/slog"
)

const mask = "***"

// Value holds a secret and prints as *** through every door that logging, formatting and marshalling use. Only Reveal
// gives the text, so that a search for Reveal finds every place where a secret leaves.
type Value struct{ text string }

// NewValue wraps a text.
func NewValue(text string) Value { return Value{text} }

// Reveal returns the text.
func (v Value) Reveal() string { return v.text }

// Empty tells whether there is no text.
func (v Value) Empty() bool { return v.text == "" }

// String, GoString, Format, LogValue, MarshalJSON and MarshalText all give ***. Format is there because %x and %q would
// otherwise reach the field by reflection.
func (v Value) String() string               { return mask }
func (v Value) GoString() string             { return mask }
func (v Value) Format(s fmt.State, _ rune)   { _, _ = s.Write([]byte(mask)) }
func (v Value) LogValue() slog.Value         { return slog.StringValue(mask) }
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }
func (v Value) MarshalText() ([]byte, error) { return []byte(mask), nil }
