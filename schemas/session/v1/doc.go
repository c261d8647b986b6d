// Package sessionv1 is version 1 of the wire contract for sessions of MCP clients: started (put), ended (delete).
package sessionv1
