package seal

import (
	"fmt"
	"time"

	"filippo.io/age"
)

// Generate makes a key: the text of a file with its identity, which is a secret,
// and its recipient, which is none. postQuantum keys withstand quantum computers;
// their recipients are about 2,000 bytes long.
func Generate(postQuantum bool, now time.Time) (identityFile, recipient string, err error) {
	var secret string
	if postQuantum {
		i, err := age.GenerateHybridIdentity()
		if err != nil {
			return "", "", err
		}
		secret, recipient = i.String(), i.Recipient().String()
	} else {
		i, err := age.GenerateX25519Identity()
		if err != nil {
			return "", "", err
		}
		secret, recipient = i.String(), i.Recipient().String()
	}
	text := fmt.Sprintf("# created: %s\n# public key: %s\n# key id: %s\n%s\n", now.UTC().Format(time.RFC3339), recipient, KeyID(recipient), secret)
	return text, recipient, nil
}
