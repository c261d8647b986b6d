package term

// WaitingAtTerminal is Waiting where a test is the terminal.
var WaitingAtTerminal = waiting
