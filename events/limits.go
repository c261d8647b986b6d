package events

// Limits on what is accepted from a log or written to one. They are generous
// beside what brokers take by default (1 MiB a record batch) and exist so that
// a hostile or broken record costs bounded memory.
const (
	MaxNameBytes      = 63       // region and stream names, like DNS labels
	MaxTopicBytes     = 174      // a log's topic; leaves room for the longest "<origin>." within Kafka's 249
	MaxKeyBytes       = 32 << 10 // entity key
	MaxValueBytes     = 16 << 20 // payload
	MaxAttributeBytes = 1 << 10  // each of id, source, type, subject, content type
	MaxContextOrigins = 256      // entries of a causal context
	MaxHeaders        = 128      // headers of one record
	MaxVectorLogs     = 1 << 20  // entries of a vector's textual form
	MaxPartition      = 1 << 20  // exclusive bound of partition numbers
)
