package batch

import (
	"fmt"
	"strings"
	"testing"
)

// tiny are batches of one or two records of about 300 bytes, as a producer that
// does not linger writes them.
func tiny(t failer, n int, codec Codec) (batches []Batch, records int) {
	for i := range n {
		w := written{base: int64(records), attributes: int16(codec), pid: 5}
		for range 1 + i%2 {
			value := fmt.Sprintf(`{"id":"%08x","account":%d,"state":"open","note":"%s"}`, records*2654435761, records%977, note(records, 20))
			w.records = append(w.records, Record{
				Offset: int64(records), Timestamp: 1700000000000 + int64(i), Key: fmt.Appendf(nil, "account-%d", records%977), Value: []byte(value),
				Headers: []RecordHeader{{"ce_type", []byte("account.changed.v1")}},
			})
			records++
		}
		b, _, err := Read(w.encode(t))
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, b)
	}
	return batches, records
}

// note is text of twelve bytes a word, that compresses as text does.
func note(seed, words int) string {
	var b strings.Builder
	for i := range words {
		fmt.Fprintf(&b, "%-11s ", []string{"balance", "transferred", "approved", "customer", fmt.Sprintf("%010x", seed*(i+7919)*40503)}[(seed*31+i*i)%5])
	}
	return b.String()
}

func BenchmarkMerge(b *testing.B) {
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			batches, records := tiny(b, 3000, codec)
			bytes := 0
			for _, one := range batches {
				bytes += len(one.Raw)
			}
			r := NewRecoder()
			b.SetBytes(int64(bytes))
			b.ReportAllocs()
			for b.Loop() {
				if d, err := r.Merge(batches); err != nil || int(d.Count) != records {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(records), "ns/record")
		})
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			batches, records := tiny(b, 3000, codec)
			r := NewRecoder()
			whole, err := r.Merge(batches)
			if err != nil {
				b.Fatal(err)
			}
			large, _, err := Read(whole.Raw)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(large.Raw)))
			b.ReportAllocs()
			for b.Loop() {
				if parts, err := r.Split(large, len(large.Raw)/3); err != nil || len(parts) < 3 {
					b.Fatal(len(parts), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(records), "ns/record")
		})
	}
}

func BenchmarkReadVerifyStamp(b *testing.B) {
	batches, _ := tiny(b, 3000, None)
	var raw []byte
	for _, one := range batches {
		raw = append(raw, one.Raw...)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := raw; len(rest) > 0; {
			one, after, err := Read(rest)
			if err == nil {
				err = one.Verify()
			}
			if err != nil {
				b.Fatal(err)
			}
			Stamp(one.Raw, 7, 0, 100)
			rest = after
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(batches)), "ns/batch")
}
