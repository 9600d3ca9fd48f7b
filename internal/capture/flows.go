package capture

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// flows counts the packets of UDP destinations, to name them where no stream is found.
type flows map[Flow]int

const (
	mostFlows  = 256 // that are counted: a scan has thousands
	namedFlows = 5
)

func (f flows) add(flow Flow) {
	if _, ok := f[flow]; ok || len(f) < mostFlows {
		f[flow]++
	}
}

// String says what there is, the largest first.
func (f flows) String() string {
	if len(f) == 0 {
		return "it holds no UDP packets: was it taken at the right interface, of the right port?"
	}
	all := slices.SortedFunc(maps.Keys(f), func(a, b Flow) int {
		return cmp.Or(cmp.Compare(f[b], f[a]), cmp.Compare(a.String(), b.String()))
	})
	var words []string
	for _, flow := range all[:min(len(all), namedFlows)] {
		words = append(words, fmt.Sprintf("%s (%d packets)", flow, f[flow]))
	}
	if more := len(all) - namedFlows; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return "its UDP flows are " + strings.Join(words, ", ") + ": choose the stream's with --flow"
}
