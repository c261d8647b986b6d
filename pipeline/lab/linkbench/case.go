package linkbench

import (
	"fmt"
	"slices"
	"time"
)

// Case is one log to be mirrored.
type Case struct {
	Codec       string // none, gzip, snappy, lz4 or zstd
	RecordBytes int    // of key and value together, uncompressed
	Tiny        bool   // batches of one or two records, not of largeBatchBytes
	Partitions  int32
	RTT         time.Duration // between the source and whoever mirrors it
	Records     int
}

const (
	kilobyte = 1000
	megabyte = 1000 * 1000
	farRTT   = 80 * time.Millisecond // from one coast of North America to the other, and a bit
)

// Name tells a case from all others of a run: lz4-1000B-large-p12-0ms.
func (c Case) Name() string {
	return fmt.Sprintf("%s-%dB-%s-p%d-%dms", c.Codec, c.RecordBytes, c.batch(), c.Partitions, c.RTT.Milliseconds())
}

func (c Case) batch() string {
	if c.Tiny {
		return "tiny"
	}
	return "large"
}

// payloadBytes is what a log of these cases holds for the slowest system to be
// busy for ten to twenty seconds with what is measured of it.
var payloadBytes = map[string]int{
	"none": 2000 * megabyte, "lz4": 2500 * megabyte, "snappy": 2500 * megabyte, "zstd": 2000 * megabyte, "gzip": 1000 * megabyte,
}

// smallRecordShare is by how much less is taken of records of 100 bytes, which
// cost any system that looks at each record several times as much a byte.
const smallRecordShare = 3

const (
	tinyRecordBytes = 300
	tinyRecords     = 1_500_000
)

// Cases lists what is measured: all of it, or what ends within four minutes.
func Cases(short bool) []Case {
	large := func(codec string, recordBytes int, partitions int32, rtt time.Duration) Case {
		n := payloadBytes[codec] / recordBytes
		if recordBytes < kilobyte {
			n /= smallRecordShare
		}
		return Case{Codec: codec, RecordBytes: recordBytes, Partitions: partitions, RTT: rtt, Records: n}
	}
	tiny := func(codec string, partitions int32, n int) Case {
		return Case{Codec: codec, RecordBytes: tinyRecordBytes, Tiny: true, Partitions: partitions, Records: n}
	}
	if short {
		cases := []Case{large("lz4", kilobyte, 6, 0), large("none", kilobyte, 6, 0), tiny("lz4", 6, 0)}
		for i, n := range []int{1_200_000, 1_000_000, 800_000} {
			cases[i].Records = n
		}
		return cases
	}
	var cases []Case
	for _, codec := range []string{"lz4", "none", "zstd", "snappy", "gzip"} {
		for _, recordBytes := range []int{kilobyte, 100, 10 * kilobyte} {
			cases = append(cases, large(codec, recordBytes, 12, 0))
		}
	}
	return slices.Concat(cases, []Case{
		tiny("lz4", 12, tinyRecords), tiny("none", 12, tinyRecords),
		large("lz4", kilobyte, 1, 0), large("lz4", kilobyte, 100, 0),
		large("lz4", kilobyte, 12, farRTT), large("none", kilobyte, 12, farRTT),
	})
}
