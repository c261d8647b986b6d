// Package configv1 is version 1 of the wire contract for configuration values: set (put), unset (delete).
package configv1
