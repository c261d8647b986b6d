package config

import "strings"

// closest finds the word that was probably meant, or "".
func closest(typed string, words []string) string {
	if typed == "" || len(typed) > clipBytes {
		return ""
	}
	best, bestDistance := "", 3
	for _, w := range words {
		most := min(2, max(len(typed), len(w))/3)
		if d := distance(strings.ToLower(typed), strings.ToLower(w)); d <= most && d < bestDistance {
			best, bestDistance = w, d
		}
	}
	if best != "" {
		return best
	}
	for _, w := range words { // "ca" for "ca_file", but not a path for one that it leads to
		if rest, ok := strings.CutPrefix(w, typed+"_"); ok && !strings.HasPrefix(rest, "_") {
			return w
		}
	}
	return ""
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	row := func(n int) []int { return make([]int, n) }
	before, last, next := row(len(b)+1), row(len(b)+1), row(len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			next[j] = min(last[j]+1, next[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, last, next = last, next, before
	}
	return last[len(b)]
}
