package objstore_test

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkS3 measures a verified Create and a Get against the test server, which
// shares the processors with the client.
func BenchmarkS3(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		body := make([]byte, size)
		b.Run(fmt.Sprintf("create/%dKiB", size>>10), func(b *testing.B) {
			store := openS3(b, s3Config())
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := store.Create(b.Context(), fmt.Sprintf("n/%d", i), body); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("get/%dKiB", size>>10), func(b *testing.B) {
			store := openS3(b, s3Config())
			if err := store.Create(b.Context(), "n", body); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				rc, _, err := store.Get(b.Context(), "n")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, rc); err != nil {
					b.Fatal(err)
				}
				if err := rc.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
