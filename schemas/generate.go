package schemas

// The generator is pinned twice: buf by the version below, the Go plugin by
// go.mod (see buf.gen.yaml). Lint comes first, so that nothing is generated
// from a contract that breaks the rules in buf.yaml.
//
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.72.0 lint
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.72.0 format --diff --exit-code
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.72.0 generate
