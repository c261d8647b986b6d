// Package controlv1 is version 1 of the wire contract for what regions tell each other: attestations and starts (puts).
package controlv1
