package config_test

import (
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

func ExampleParse() {
	text := `
region: us-east-1
data_dir: /var/lib/evenkeel
partitions: 8
regions:
  us-east-1:
    kafka: {seeds: [broker-1:9092, broker-2:9092]}
`
	c, err := config.Parse("region.yaml", []byte(text), []string{"EVENKEEL_API__LISTEN=127.0.0.1:7500"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Origin(c.Region), c.Partitions, c.Own().API, c.StreamNames())
	// Output: us-east-1 8 http://127.0.0.1:7500 [config metrics registry secrets session]
}

func ExampleError() {
	text := `
region: us-east-2
partitons: 8
regions:
  us-east-1:
    kafka: {seeds: [broker-1]}
`
	_, err := config.Parse("region.yaml", []byte(text), nil)
	fmt.Println(err)
	var e *config.Error
	fmt.Println(errors.As(err, &e), len(e.Problems), events.KindOf(err))
	// Output:
	// region.yaml: data_dir: missing: which directory may this node keep its state in?
	// region.yaml:2: region: "us-east-2" is none of the regions (us-east-1)
	// region.yaml:3: partitons: unknown key; did you mean partitions?
	// region.yaml:6: regions.us-east-1.kafka.seeds[0]: want host:port, got "broker-1"
	// true 4 invalid
}
