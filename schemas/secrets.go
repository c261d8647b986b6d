package schemas

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	secretsv1 "github.com/evenkeel/evenkeel/schemas/secrets/v1"
)

func secretsTypes() []Type {
	return []Type{
		define("erlmcp.secrets.stored.v1", "secrets", 1, OpPut, validateSecretStored),
		define("erlmcp.secrets.erased.v1", "secrets", 1, OpDelete, validateSecretErased),
	}
}

// ageMagic begins every binary age v1 file: the one algorithm whose output can
// be told from plaintext.
const ageMagic = "age-encryption.org/v1\n"

// maxWrappedKeyBytes has room for a data key under RSA-16384 or a hybrid
// post-quantum scheme.
const maxWrappedKeyBytes = 4096

func validateSecretStored(m *secretsv1.SecretStored, r *rules) {
	r.noUnknownFields(m)
	r.id("name", m.GetName())
	r.positive("version", m.GetVersion())
	r.enum("algorithm", int32(m.GetAlgorithm()), secretsv1.Algorithm_name)
	r.names("key_ids", m.GetKeyIds(), 1, 16)
	validateWrappedKeys(m, r)
	if m.GetAlgorithm() == secretsv1.Algorithm_ALGORITHM_AGE {
		r.exactly("nonce", m.GetNonce(), 0)
		r.that(bytes.HasPrefix(m.GetCiphertext(), []byte(ageMagic)), "ciphertext", "is no binary age file")
	} else {
		r.exactly("nonce", m.GetNonce(), nonceBytes(m.GetAlgorithm()))
	}
	r.blob("ciphertext", m.GetCiphertext(), 16, maxBlobBytes) // 16: an empty plaintext is a tag alone
	r.id("stored_by", m.GetStoredBy())
	r.millis("stored_at_ms", m.GetStoredAtMs())
}

func validateWrappedKeys(m *secretsv1.SecretStored, r *rules) {
	const field = "wrapped_keys"
	if len(m.GetWrappedKeys()) == 0 {
		r.that(m.GetAlgorithm() == secretsv1.Algorithm_ALGORITHM_AGE || len(m.GetKeyIds()) == 1, field,
			"must not be empty when key_ids names more than one key")
		return
	}
	r.that(m.GetAlgorithm() != secretsv1.Algorithm_ALGORITHM_AGE, field, "must be empty for an age file")
	r.that(len(m.GetWrappedKeys()) == len(m.GetKeyIds()), field, "must be as many as key_ids")
	for _, k := range m.GetWrappedKeys() {
		r.blob(field, k, 16, maxWrappedKeyBytes)
	}
}

func nonceBytes(a secretsv1.Algorithm) int {
	if a == secretsv1.Algorithm_ALGORITHM_XCHACHA20_POLY1305 {
		return 24
	}
	return 12
}

func validateSecretErased(m *secretsv1.SecretErased, r *rules) {
	r.noUnknownFields(m)
	r.id("name", m.GetName())
	r.positive("version", m.GetVersion())
	r.id("erased_by", m.GetErasedBy())
	r.text("reason", m.GetReason(), maxTextBytes)
	r.millis("erased_at_ms", m.GetErasedAtMs())
}

// closed reports whether fields outside the contract are refused: in secrets,
// they are the likeliest way for plaintext to slip into a log.
func closed(t Type) bool { return t.Family == "secrets" }

// noUnknownFields refuses fields outside the contract. Messages of this family
// are flat, so that the top level is all there is.
func (r *rules) noUnknownFields(m proto.Message) {
	r.that(len(m.ProtoReflect().GetUnknown()) == 0, "", "has a field that the contract does not know, which this family refuses")
}
