package errs

// The codes. A code once released keeps its meaning, and a number that is missing is not given out again; docs/errors
// holds one page each, made from Catalog.
const (
	SourceUnreachable  Code = "W1001"
	SourcePreflight    Code = "W1002"
	SlotLost           Code = "W1003"
	SlotGap            Code = "W1004"
	SlotInUse          Code = "W1005"
	SourceReplaced     Code = "W1006"
	PublicationMissing Code = "W1007"
	TableUnsupported   Code = "W1008"
	NoTables           Code = "W1009"
	SourceProtocol     Code = "W1010"
	SourceSchemaChange Code = "W1011"
	RowFilterUnsupport Code = "W1012"
	SourceStream       Code = "W1014"
	TableUnknown       Code = "W1016"
	SourceRecord       Code = "W1017"
	SourceFile         Code = "W1018"

	SQLSyntax      Code = "W2001"
	SQLNotBuilt    Code = "W2002"
	SQLUnknownName Code = "W2003"

	EvalRange          Code = "W2010"
	EvalDivisionByZero Code = "W2011"
	EvalCast           Code = "W2012"
	EvalArgument       Code = "W2013"

	SQLTypeMismatch    Code = "W2020"
	SQLUnknownFunction Code = "W2021"
	SQLGrouping        Code = "W2022"
	SQLConnector       Code = "W2023"
	SQLUpdates         Code = "W2024"
	SQLUnbounded       Code = "W2025"

	EngineInternal   Code = "W3001"
	PipelineNotFound Code = "W3002"
	PipelineExists   Code = "W3003"
	PipelineState    Code = "W3004"
	NotCaughtUp      Code = "W3005"
	SnapshotTooOld   Code = "W3006"
	QueryMemory      Code = "W3007"

	TargetUnreachable Code = "W4001"
	Fenced            Code = "W4002"
	TargetRejected    Code = "W4003"
	TargetDDL         Code = "W4005"
	TargetRowMissing  Code = "W4006"
	TargetConflict    Code = "W4007"
	TargetTable       Code = "W4008"
	TargetFile        Code = "W4009"
	InsertOnly        Code = "W4010"

	StateLocked  Code = "W5001"
	StateCorrupt Code = "W5002"
	NotReachable Code = "W5003"
	RaftFailed   Code = "W5004"
	DiskFailed   Code = "W5005"

	StateLogDamaged Code = "W5010"

	BadFlag       Code = "W6001"
	BadURL        Code = "W6002"
	SecretMissing Code = "W6003"
	UnknownOption Code = "W6004"
	AddressBusy   Code = "W6005"
	NotBuiltYet   Code = "W6006"
	BadPattern    Code = "W6007"
)
