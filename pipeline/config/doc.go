// Package config is the configuration of one node of one region: one YAML file,
// overridden by the environment, validated whole.
//
// # Contract
//
//   - Load and Parse return either a Config that is complete (defaults filled
//     in) and valid, or an *Error that lists every problem found, each with its
//     path in the file and, where it has one, its line. Problems are of kind
//     events.KindInvalid. Only text that is no YAML at all hides other problems.
//   - Keys that are not known, keys given twice and values of the wrong type
//     are problems. A key without a value ("prefix:") counts as not given.
//   - Anchors and aliases work; merge keys ("<<") do not.
//   - Files that the configuration names (certificates, passwords) are read to
//     see that they are usable. Relative names are relative to the directory in
//     which the process runs. Nothing else is touched: no directory is made, no
//     address resolved, nothing connected to.
//   - No error, log line or printed Config shows a password: they are Secrets,
//     and messages never quote a URL, which may hold one. Passwords do not stand
//     in the file; it says where they are.
//
// A Config is plain data: safe to read from any goroutine while nobody writes.
// Nothing reloads it. The file example.yaml documents every key.
//
// # Environment
//
// A variable named EVENKEEL_ and the path of a key overrides that key: upper
// case, levels separated by two underscores, dashes written as underscores.
//
//	EVENKEEL_DATA_DIR=/srv/evenkeel
//	EVENKEEL_API__LISTEN=127.0.0.1:7500
//	EVENKEEL_REGIONS__US_EAST_1__KAFKA__SEEDS=a:9092,b:9092
//
// Lists are separated by commas. Regions and streams must be in the file (or be
// default streams): the environment changes them and adds none. An empty
// variable counts as not set. Any other variable EVENKEEL_… is a problem, since
// it was meant to change something and does not, except
//
//   - those of the command line: EVENKEEL_CONFIG, EVENKEEL_LAB, EVENKEEL_OUTPUT,
//     EVENKEEL_SERVER, and EVENKEEL_KAFKA_…, with which tests find brokers;
//   - those that a password_env names;
//   - what Kubernetes sets in every pod for a service whose name begins with
//     "evenkeel": EVENKEEL_SERVICE_HOST, EVENKEEL_PORT_7400_TCP and so on.
package config
