# Makes constants of discovery's into settings of its environment, which are as before where none is given. An instance is
# evicted 90 s after its last renewal at the earliest, and after an hour while the server protects itself: no test waits.
# What is registered in the region "kept" stays without renewal: records of others, which a test writes by the thousand.
# So does a node itself, which renews every 30 s.
#
# Its argument is a copy of the module's source.
set -euo pipefail
cd "$1"

# file, what is replaced, by what: once, or it is another discovery than the one this was written for.
edit() {
  [ "$(grep -cF -- "$2" "$1")" = 1 ] || { echo "discovery-clocked.sh: $1 has no '$2', or several" >&2; exit 1; }
  awk -v from="$2" -v to="$3" '
    (at = index($0, from)) { $0 = substr($0, 1, at - 1) to substr($0, at + length(from)) }
    { print }' "$1" >"$1.new"
  mv "$1.new" "$1"
}

edit registry/registry.go 'const (' 'var ('
edit registry/registry.go 'int64(90 * time.Second)' 'int64(clock("EVICT_AFTER", 90*time.Second))'
edit registry/registry.go 'int64(3600 * time.Second)' 'int64(clock("EVICT_PROTECTED_AFTER", 3600*time.Second))'
edit registry/registry.go 'time.Tick(1 * time.Minute)' 'time.Tick(clock("EVICT_EVERY", time.Minute))'
edit registry/registry.go 'delta := time.Now().UnixNano() - i.RenewTimestamp' \
  'if i.Region == "kept" || i.AppID == model.AppID { continue }; delta := time.Now().UnixNano() - i.RenewTimestamp'
edit registry/guard.go 'const (' 'var ('
edit registry/guard.go '_percentThreshold float64 = 0.85' '_percentThreshold = percent()'
cat >registry/clock.go <<'GO'
package registry

import (
	"os"
	"strconv"
	"time"
)

func clock(name string, usual time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return usual
}

// Of the renewals that must arrive, or the server protects itself; with 0 it never does.
func percent() float64 {
	if n, err := strconv.ParseFloat(os.Getenv("PROTECT_BELOW"), 64); err == nil {
		return n
	}
	return 0.85
}
GO
edit http/discovery.go 'const (' 'var ('
edit http/discovery.go '_pollWaitSecond = 30 * time.Second' '_pollWaitSecond = pollWait()'
cat >http/clock.go <<'GO'
package http

import (
	"os"
	"time"
)

func pollWait() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("POLL_WAIT")); err == nil {
		return d
	}
	return 30 * time.Second
}
GO
