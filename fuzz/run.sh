#!/bin/sh
# Runs every fuzz target, two at a time, and stops at the first finding.
#
#   fuzz/run.sh [seconds] [target ...]     300 seconds for each of all targets by default
#
# Needs `cargo install cargo-fuzz` and a nightly toolchain. A finding is kept in
# fuzz/artifacts/<target>/; `cargo +nightly fuzz run <target> <file>` shows it again, and
# `cargo +nightly fuzz tmin <target> <file>` makes it smaller.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-300}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list | grep -v '^seeds$')

cargo +nightly fuzz build
mkdir -p fuzz/artifacts
# Not libFuzzer's own -fork: it passes over inputs of the corpus that fail. A status of 255 keeps
# xargs from starting another target.
export seconds
printf '%s\n' "$@" | xargs -n 1 -P 2 sh -c '
    log=fuzz/artifacts/$0.log
    # Genuine KeyPackages among the seeds are valid for an hour only.
    cargo +nightly fuzz run seeds >"$log" 2>&1 &&
        cargo +nightly fuzz run "$0" -- -max_total_time="$seconds" \
            -max_len=8192 -timeout=20 -rss_limit_mb=2048 >>"$log" 2>&1 ||
        { tail -n 60 "$log"; echo "== $0: see $log"; exit 255; }
    echo "== $0: $(tail -n 1 "$log")"
'
echo "== no findings"
