// Package objstoretest is the suite that every implementation of
// objstore.Bucket passes: the package comment of objstore as tests.
//
//	func TestMyBucket(t *testing.T) {
//		objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return openMine(t) })
//	}
package objstoretest
