package schemas

import (
	"crypto/sha256"

	registryv1 "github.com/evenkeel/evenkeel/schemas/registry/v1"
)

func registryTypes() []Type {
	return []Type{
		define("erlmcp.registry.registered.v1", "registry", 1, OpPut, validateRegistered),
		define("erlmcp.registry.unregistered.v1", "registry", 1, OpDelete, validateUnregistered),
	}
}

func validateRegistered(m *registryv1.Registered, r *rules) {
	r.enum("kind", int32(m.GetKind()), registryv1.Kind_name)
	r.id("name", m.GetName())
	r.name("node", m.GetNode())
	r.optional("server", m.GetServer(), maxIDBytes)
	r.optional("version", m.GetVersion(), maxNameBytes)
	r.text("description", m.GetDescription(), 8192)
	r.names("capabilities", m.GetCapabilities(), 0, 64)
	if n := len(m.GetSchemaHash()); n != 0 {
		r.exactly("schema_hash", m.GetSchemaHash(), sha256.Size)
	}
	r.pairs("metadata", m.GetMetadata(), 64)
	r.millis("registered_at_ms", m.GetRegisteredAtMs())
}

func validateUnregistered(m *registryv1.Unregistered, r *rules) {
	r.enum("kind", int32(m.GetKind()), registryv1.Kind_name)
	r.id("name", m.GetName())
	r.name("node", m.GetNode())
	r.text("reason", m.GetReason(), maxTextBytes)
	r.millis("unregistered_at_ms", m.GetUnregisteredAtMs())
}
