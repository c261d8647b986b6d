package schemas

import (
	sessionv1 "github.com/evenkeel/evenkeel/schemas/session/v1"
)

func sessionTypes() []Type {
	return []Type{
		define("erlmcp.session.started.v1", "session", 1, OpPut, validateSessionStarted),
		define("erlmcp.session.ended.v1", "session", 1, OpDelete, validateSessionEnded),
	}
}

func validateSessionStarted(m *sessionv1.SessionStarted, r *rules) {
	r.id("session_id", m.GetSessionId())
	r.name("client.name", m.GetClient().GetName())
	r.optional("client.version", m.GetClient().GetVersion(), maxNameBytes)
	r.word("protocol_version", m.GetProtocolVersion(), 32)
	r.names("capabilities", m.GetCapabilities(), 0, 64)
	r.optional("user_id", m.GetUserId(), maxIDBytes)
	r.name("node", m.GetNode())
	r.enum("transport", int32(m.GetTransport()), sessionv1.Transport_name)
	r.enum("state", int32(m.GetState()), sessionv1.State_name)
	r.millis("started_at_ms", m.GetStartedAtMs())
	r.millis("last_active_at_ms", m.GetLastActiveAtMs())
}

func validateSessionEnded(m *sessionv1.SessionEnded, r *rules) {
	r.id("session_id", m.GetSessionId())
	r.enum("reason", int32(m.GetReason()), sessionv1.EndReason_name)
	r.text("detail", m.GetDetail(), maxTextBytes)
	r.name("node", m.GetNode())
	r.millis("ended_at_ms", m.GetEndedAtMs())
}
