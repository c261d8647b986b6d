package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

// Config is how a lab is made. For a lab that is there already, regions, ports
// and partitions are those that it was made with.
type Config struct {
	Dir        string
	Regions    []events.Region // empty: DefaultRegions
	Partitions int32           // 0: DefaultPartitions
	Nodes      int             // of each region; 0: 1
	BasePort   int             // of the first region; 0: any ports that are free

	// Kafka are clusters that are there already, by region (host:port of a
	// broker). A region without one gets an embedded cluster. The lab does not
	// start or stop them.
	Kafka map[events.Region]string
}

// Defaults of a lab. Regions take two ports each from the base port on (API,
// Kafka), so that the first region's API is where the command line looks for it; the
// ports of further nodes come after them.
const (
	DefaultPartitions = 4
	DefaultBasePort   = 7400
	ControlOffset     = 90 // of the control page, from the base port
	s3Offset          = 91
)

// DefaultRegions are the three that a lab has unless told otherwise.
func DefaultRegions() []events.Region {
	return []events.Region{"us-east-1", "us-west-1", "eu-central-1"}
}

// settings is what a lab was made with.
type settings struct {
	Partitions int32            `json:"partitions"`
	Control    int              `json:"control_port"`
	S3         int              `json:"s3_port"`
	Regions    []regionSettings `json:"regions"`
}

type regionSettings struct {
	Name  events.Region `json:"name"`
	API   int           `json:"api_port"`
	More  []int         `json:"more_api_ports,omitempty"` // of further nodes
	Kafka string        `json:"kafka"`                    // host:port

	// External clusters are not the lab's to start and stop.
	External bool `json:"kafka_external,omitempty"`
}

const settingsFile = "lab.json"

// loadSettings reads the settings of a lab, or makes those of a new one.
func loadSettings(cfg Config) (*settings, error) {
	path := filepath.Join(cfg.Dir, settingsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSettings(cfg, path)
	}
	if err != nil {
		return nil, err
	}
	s := &settings{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return s, s.agree(cfg)
}

// agree refuses wishes that the existing lab does not fulfil.
func (s *settings) agree(cfg Config) error {
	if cfg.Partitions != 0 && cfg.Partitions != s.Partitions {
		return events.Errorf(events.KindRefused, "the lab in %s has %d partitions, not %d; choose another directory", cfg.Dir, s.Partitions, cfg.Partitions)
	}
	if nodes := 1 + len(s.Regions[0].More); cfg.Nodes != 0 && cfg.Nodes != nodes {
		return events.Errorf(events.KindRefused, "the lab in %s has %d nodes a region, not %d; choose another directory", cfg.Dir, nodes, cfg.Nodes)
	}
	if len(cfg.Regions) == 0 {
		return nil
	}
	same := len(cfg.Regions) == len(s.Regions)
	for i := 0; same && i < len(s.Regions); i++ {
		same = s.Regions[i].Name == cfg.Regions[i]
	}
	if !same {
		return events.Errorf(events.KindRefused, "the lab in %s has other regions than %v; choose another directory", cfg.Dir, cfg.Regions)
	}
	return nil
}

func makeSettings(cfg Config, path string) (*settings, error) {
	regions := cfg.Regions
	if len(regions) == 0 {
		regions = DefaultRegions()
	}
	seen := map[events.Region]bool{}
	for _, r := range regions {
		if err := r.Validate(); err != nil {
			return nil, err
		}
		if seen[r] {
			return nil, events.Errorf(events.KindInvalid, "region %s is named twice", r)
		}
		seen[r] = true
	}
	nodes := max(cfg.Nodes, 1)
	if n := len(regions) * (1 + nodes); n > ControlOffset {
		return nil, events.Errorf(events.KindInvalid, "%d regions with %d nodes each need %d ports: a lab has at most %d", len(regions), nodes, n, ControlOffset)
	}
	ports, err := choosePorts(cfg.BasePort, len(regions), nodes)
	if err != nil {
		return nil, err
	}
	s := &settings{Partitions: cfg.Partitions, Control: ports.control, S3: ports.s3}
	if s.Partitions == 0 {
		s.Partitions = DefaultPartitions
	}
	for i, r := range regions {
		more := ports.more[i*(nodes-1) : (i+1)*(nodes-1)]
		rs := regionSettings{Name: r, API: ports.regions[2*i], Kafka: loopback(ports.regions[2*i+1]), More: more}
		if address, ok := cfg.Kafka[r]; ok {
			rs.Kafka, rs.External = address, true
		}
		s.Regions = append(s.Regions, rs)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	return s, os.WriteFile(path, append(text, '\n'), 0o644)
}

// ports are those of a lab; a region takes two, and each node beyond the first one.
type ports struct {
	control, s3   int
	regions, more []int
}

func choosePorts(base, regions, nodes int) (ports, error) {
	n := regions * (1 + nodes)
	if base == 0 {
		free, err := freePorts(2 + n)
		if err != nil {
			return ports{}, err
		}
		return ports{control: free[0], s3: free[1], regions: free[2 : 2+2*regions], more: free[2+2*regions:]}, nil
	}
	all := make([]int, n)
	for i := range all {
		all[i] = base + i
	}
	return ports{control: base + ControlOffset, s3: base + s3Offset, regions: all[:2*regions], more: all[2*regions:]}, nil
}

// Free ports are looked for below those that systems give to outgoing
// connections: one of these could be taken while the lab is stopped.
const (
	firstFreePort = 15_000
	lastFreePort  = 32_000
	portTries     = 10_000
)

// freePorts finds n ports that nobody listens on.
func freePorts(n int) (free []int, err error) {
	for range portTries {
		if len(free) == n {
			return free, nil
		}
		port := firstFreePort + rand.IntN(lastFreePort-firstFreePort)
		// All are held until all are found, so that none is found twice.
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		defer l.Close()
		free = append(free, port)
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, firstFreePort, lastFreePort)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// nodeConfigs are the configurations of a region's nodes.
func (s *settings) nodeConfigs(dir string, region regionSettings, keys keys) []*config.Config {
	configs := []*config.Config{s.nodeConfig(dir, region, keys, "node", region.API)}
	for i, port := range region.More {
		configs = append(configs, s.nodeConfig(dir, region, keys, fmt.Sprintf("node-%d", i+2), port))
	}
	return configs
}

func (s *settings) nodeConfig(dir string, region regionSettings, keys keys, name string, port int) *config.Config {
	c := config.Default()
	c.Region = region.Name
	c.DataDir = filepath.Join(dir, region.Name.String(), name)
	c.Partitions = s.Partitions
	c.API.Listen = loopback(port)
	c.Regions = map[events.Region]config.Region{}
	for _, r := range s.Regions {
		c.Regions[r.Name] = config.Region{
			Incarnation: 1,
			API:         "http://" + loopback(r.API),
			Kafka:       config.Kafka{Seeds: []string{r.Kafka}},
		}
	}
	c.Backup = &config.Backup{
		Bucket: bucketName(region.Name), Endpoint: "http://" + loopback(s.S3),
		Region: region.Name.String(), PathStyle: true,
		Encryption: "age", Recipients: keys.recipients, IdentityFile: keys.operating,
		Keep: config.Keep{Full: 30 * 24 * time.Hour, Segment: 24 * time.Hour}, KeepLast: 3, // backups on demand only: a lab has no nights
		Schedule: config.Schedule{Segment: 3 * time.Second},
	}
	return &c
}

func bucketName(r events.Region) string { return "evenkeel-" + r.String() }
