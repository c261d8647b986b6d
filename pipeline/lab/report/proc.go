package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of times in /proc: USER_HZ, 100 on every
// architecture that Go runs on.
const ticksPerSecond = 100

// CPUTime reads the processor time that a process has used, of all its threads.
func CPUTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(text)
}

// parseStat adds up utime and stime, fields 14 and 15. Field 2 is the command
// in parentheses and may itself hold spaces and parentheses.
func parseStat(text []byte) (time.Duration, error) {
	i := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[i+1:])
	if i < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat: %q is too short", text)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseUint(string(field), 10, 40)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		ticks += int64(n)
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// PeakMemoryBytes reads the most memory that a process has had resident.
func PeakMemoryBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseStatus(text)
}

func parseStatus(text []byte) (int64, error) {
	for line := range strings.Lines(string(text)) {
		value, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 50)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/status, VmHWM: %w", err)
		}
		return int64(n) * 1024, nil
	}
	return 0, errors.New("/proc/PID/status has no VmHWM: has the process ended?")
}
