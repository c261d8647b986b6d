// Package secretsv1 is version 1 of the wire contract for secrets as ciphertext only: stored (put), erased (delete).
package secretsv1
