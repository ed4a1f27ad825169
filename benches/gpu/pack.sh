#!/usr/bin/env bash
# Builds the kernels' tests and benchmarks and packs them, stripped, with what runs them: gpu.tar.gz needs no Rust and no compiler where it is unpacked.
# Usage: CUDA_HOME=$(kernels/install_nvcc.sh) benches/gpu/pack.sh [OUTPUT]; PROFILE=dev packs what `cargo test` has built, for a trial.
set -euo pipefail
cd "$(dirname "$0")/../.."
output=${1:-target/gpu.tar.gz}
profile=${PROFILE:-release}
limit=$((60 * 1024 * 1024))

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/gpu"
build() {
  cargo "$@" --profile "$profile" --locked --no-run --message-format=json | python3 -c '
import json, sys
print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])'
}
tests=$(build test --test kernels)
bench=$(build bench --bench gpu)
for pair in "$tests kernel-tests" "$bench kernel-bench"; do
  read -r from to <<<"$pair"
  strip -o "$folder/gpu/$to" "$from"
done
cp benches/gpu/run.sh "$folder/gpu/"
tar -C "$folder" -czf "$output" gpu
bytes=$(stat -c %s "$output")
echo "$output: $bytes bytes; unpack it on a machine with an NVIDIA device and run gpu/run.sh"
[ "$bytes" -le "$limit" ] || { echo "more than $limit bytes" >&2; exit 1; }
