// Package e2e promises that what a user gets is what the other tests prove in parts: it runs the weir binary as a child
// process between real servers, breaks whatever can be broken from outside, and compares the two databases.
//
// Nothing here looks into the process. What is asserted is what anybody can see: the rows of both sides, the slot, the
// ledger, the answers of REST, the exit code and the log.
//
// Flags: -seed replays the actions of a hostile run (not its timing), -soak lengthens it and runs every version,
// -hostile.for sets its length.
package e2e
