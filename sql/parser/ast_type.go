package parser

// TypeKind is a data type's constructor.
type TypeKind uint8

// The kinds. Synonyms are folded: INTEGER, INT4 and INT are all TypeInt, TEXT is TypeString, BYTEA is TypeBytes,
// DOUBLE PRECISION and FLOAT8 are TypeDouble, REAL and FLOAT4 are TypeFloat, TIMESTAMPTZ and TIMESTAMP WITH LOCAL TIME
// ZONE are TypeTimestampLTZ, JSONB is TypeJSON, T ARRAY and T[] are TypeArray, T MULTISET is TypeMultiset.
const (
	TypeUser         TypeKind = iota // a name that is none of the others: DataType.Name
	TypeChar                         // Length
	TypeVarchar                      // Length
	TypeString                       //
	TypeBinary                       // Length
	TypeVarbinary                    // Length
	TypeBytes                        //
	TypeBoolean                      //
	TypeDecimal                      // Precision, Scale
	TypeTinyint                      //
	TypeSmallint                     //
	TypeInt                          //
	TypeBigint                       //
	TypeFloat                        //
	TypeDouble                       //
	TypeDate                         //
	TypeTime                         // Precision
	TypeTimestamp                    // Precision
	TypeTimestampLTZ                 // Precision
	TypeTimestampTZ                  // TIMESTAMP WITH TIME ZONE, which Flink does not store either; Precision
	TypeInterval                     // Interval
	TypeArray                        // Elem
	TypeMap                          // Key, Elem
	TypeMultiset                     // Elem
	TypeRow                          // Fields
	TypeRaw                          // Raw
	TypeVariant                      //
	TypeNull                         //
	TypeUUID                         //
	TypeJSON                         //
)

// DataType is a type as it was written.
type DataType struct {
	Pos
	Kind      TypeKind
	Name      Name               // of TypeUser
	Length    *int               // in characters or bytes; nil if not given
	Precision *int               // in digits; nil if not given
	Scale     *int               // in digits; nil if not given
	Interval  *IntervalQualifier // of TypeInterval
	Key       *DataType          // a map's keys
	Elem      *DataType          // an array's or multiset's elements, a map's values
	Fields    []RowField
	Raw       []Literal // the class and its serializer
	NotNull   bool
}

// RowField is one field of a ROW type.
type RowField struct {
	Name    Ident
	Type    *DataType
	Comment *Literal
}

// TimeUnit is a unit of EXTRACT, TIMESTAMPADD, CEIL and so on, in capitals. INTERVAL takes those of them from YEAR to
// SECOND.
type TimeUnit string

// IntervalQualifier is YEAR(4) TO MONTH, or SECOND(3).
type IntervalQualifier struct {
	Pos
	From      TimeUnit
	To        TimeUnit // "" for a single unit
	Precision *int     // digits of From
	Fraction  *int     // digits behind the seconds' point
}
