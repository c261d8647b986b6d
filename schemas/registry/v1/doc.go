// Package registryv1 is version 1 of the wire contract for tools, resources, prompts and servers: registered (put), unregistered (delete).
package registryv1
