package schemas_test

import (
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/schemas"
)

func ExampleCheck() {
	t, ok := schemas.Lookup("erlmcp.config.unset.v1")
	fmt.Println(ok, t.Op)

	payload := `{"key": "limits.session", "version": 8, "changedBy": "user:ada"}`
	err := schemas.Check(t, "application/json", []byte(payload))
	fmt.Println(err)

	var refused *schemas.PayloadError
	fmt.Println(errors.As(err, &refused), refused.Field)
	// Output:
	// true delete
	// schemas: payload of "erlmcp.config.unset.v1" (content type "application/json"): field changed_at_ms: must be Unix milliseconds from 1 to 253402300799999
	// true changed_at_ms
}
