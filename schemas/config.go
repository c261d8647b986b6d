package schemas

import (
	"encoding/json"

	configv1 "github.com/evenkeel/evenkeel/schemas/config/v1"
)

func configTypes() []Type {
	return []Type{
		define("erlmcp.config.set.v1", "config", 1, OpPut, validateConfigSet),
		define("erlmcp.config.unset.v1", "config", 1, OpDelete, validateConfigUnset),
	}
}

func validateConfigSet(m *configv1.ConfigSet, r *rules) {
	r.id("key", m.GetKey())
	r.text("value", m.GetValue(), maxBlobBytes)
	r.enum("format", int32(m.GetFormat()), configv1.Format_name)
	if m.GetFormat() == configv1.Format_FORMAT_JSON && r.ok() {
		value := []byte(m.GetValue())
		r.that(jsonDepthWithin(value, MaxJSONDepth) && json.Valid(value), "value",
			"format says JSON and it is not, or is nested too deeply")
	}
	r.positive("version", m.GetVersion())
	r.id("changed_by", m.GetChangedBy())
	r.text("reason", m.GetReason(), maxTextBytes)
	r.millis("changed_at_ms", m.GetChangedAtMs())
}

func validateConfigUnset(m *configv1.ConfigUnset, r *rules) {
	r.id("key", m.GetKey())
	r.positive("version", m.GetVersion())
	r.id("changed_by", m.GetChangedBy())
	r.text("reason", m.GetReason(), maxTextBytes)
	r.millis("changed_at_ms", m.GetChangedAtMs())
}
