#!/usr/bin/env bash
# Counts the instructions of the hot paths with callgrind and compares them with the baseline,
# benches/instructions.txt. Nothing is timed, so other work of the machine does not matter.
#
#   benches/instructions.sh                        count and compare
#   benches/instructions.sh --threshold 5          fail when one needs over 5 % more; 1 is the default
#   benches/instructions.sh rekey open             only the operations whose names contain one of these
#   benches/instructions.sh --save                 make what is counted the new baseline
#
# The numbers depend on the compiler, the C library and what valgrind shows of the processor, so a
# baseline is for one toolchain: the file says which. They are not time: callgrind counts each byte that
# `rep movsb` copies, and an instruction that waits for memory as one that does not.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' benches/instructions.sh
}

baseline=benches/instructions.txt
threshold=1 save=false filters=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --threshold)
            threshold=${2-}
            if ! [[ $threshold =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
                echo "error: --threshold is a number of percent" >&2
                exit 2
            fi
            shift
            ;;
        --save) save=true ;;
        -h | --help) usage && exit ;;
        -*) echo "error: unknown option $1" >&2 && usage >&2 && exit 2 ;;
        *) filters+=("$1") ;;
    esac
    shift
done
if $save && [[ ${#filters[@]} -gt 0 ]]; then
    echo "error: a baseline has all operations" >&2
    exit 2
fi
if ! command -v valgrind >/dev/null; then
    echo "error: valgrind is not installed" >&2
    exit 2
fi

chosen() {
    [[ ${#filters[@]} -eq 0 ]] && return
    local filter
    for filter in "${filters[@]}"; do
        [[ $1 == *"$filter"* ]] && return
    done
    return 1
}

program=$(cargo bench --bench instructions --no-run --message-format=json |
    sed -n '/"name":"instructions"/s/.*"executable":"\([^"]*\)".*/\1/p')
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

# Prints how many instructions one operation takes.
count() {
    local times=$2 output=$directory/$1
    if ! valgrind --tool=callgrind --toggle-collect='instructions::counted*' \
        --callgrind-out-file="$output" "$program" "$1" "$times" >"$output.log" 2>&1; then
        cat "$output.log" >&2
        return 1
    fi
    awk -v times="$times" '/^totals:/ { total = $2 } END { printf "%.0f\n", total / times }' "$output"
}

toolchain="$(rustc --version | cut -d' ' -f1,2), $(valgrind --version), $(uname -m)"
if ! $save && [[ -e $baseline ]] && ! grep -qxF "# $toolchain" "$baseline"; then
    echo "warning: the baseline is for $(sed -n '2s/^# //p' "$baseline"), this is $toolchain" >&2
fi

failed=0
printf '%-20s %14s %14s %9s\n' operation instructions baseline change
for operation in $("$program" --list); do
    chosen "$operation" || continue
    case $operation in
        seal-* | open-*) times=200 ;;
        *) times=20 ;;
    esac
    counted=$(count "$operation" "$times")
    if [[ $counted -eq 0 ]]; then
        echo "error: callgrind did not find the function that it has to count" >&2
        exit 2
    fi
    printf '%-20s %14d\n' "$operation" "$counted" >>"$directory/counted"
    before=$(awk -v name="$operation" '$1 == name { print $2 }' "$baseline" 2>/dev/null || true)
    if [[ -z $before ]]; then
        printf '%-20s %14d %14s\n' "$operation" "$counted" none
        continue
    fi
    awk -v name="$operation" -v now="$counted" -v before="$before" -v threshold="$threshold" 'BEGIN {
        change = (now - before) * 100 / before
        worse = change > threshold
        printf "%-20s %14d %14d %+8.2f%%%s\n", name, now, before, change, worse ? "  worse" : ""
        exit worse
    }' || failed=1
done

if $save; then
    {
        echo "# Instructions of one operation, counted by benches/instructions.sh --save with"
        echo "# $toolchain"
        cat "$directory/counted"
    } >"$baseline"
    echo "wrote $baseline"
elif [[ $failed -ne 0 ]]; then
    echo "error: more than $threshold % above the baseline" >&2
    exit 1
fi
