package pipeline

// LastSlot is lastSlot, for tests.
var LastSlot = lastSlot
