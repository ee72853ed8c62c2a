#!/usr/bin/env bash
# All parts in turn, each under its limit; at most 10 minutes. What $OUT holds is not run again.
#   OUT=folder bash asv_bench/device/run.sh [--small] [part ...]
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here/../../outputs/device}
export PYTHONPATH="$here/../..${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

small=()
[ "${1:-}" = --small ] && { small=(--small); shift; }
parts=" ${*:-coala disk llama solvers default compilation} "

part() {  # name, seconds, variables of the environment
    local name=$1 limit=$2
    shift 2
    case $parts in *" $name "*) ;; *) return ;; esac
    local began=$SECONDS
    env "$@" timeout --kill-after=5 "$limit" \
        "${PYTHON:-python3}" "$here/$name.py" --out "$out" --until $(($(date +%s) + limit)) "${small[@]}"
    echo "== $name: exit code $? after $((SECONDS - began)) s of $limit"
}

mkdir -p "$out"
# The first three are those that no run has measured yet.
part coala 170
part disk 150
part llama 120 XLA_PYTHON_CLIENT_PREALLOCATE=false
part solvers 60
part default 30 JAX_PLATFORMS=cpu
part compilation 70
