#!/usr/bin/env bash
# Everything that needs an NVIDIA device, in one command: every kernel against its oracle, compute-sanitizer where it is installed, benchmarks beside
# PyTorch where it is installed. Results: kernels.log, sanitizer.log, DEVICE-DATE.json and .txt in the folder OUT (this one by default).
#
# SWEBENCH_REQUIRE_CUDA=1 makes a missing device, sanitizer or torch a failure. PYTHON names the interpreter that has torch.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here}
required=${SWEBENCH_REQUIRE_CUDA:-0}
python=${PYTHON:-python3}

step() { printf '\n== %s\n' "$*"; }
# Something that this run would need is missing.
missing() {
  echo "SKIPPED: $*" >&2
  [ "$required" != 1 ] || { echo "SWEBENCH_REQUIRE_CUDA=1: that is a failure" >&2; exit 1; }
}

step "device"
if ! "$here/kernel-bench" --probe; then
  missing "no device that these kernels run on: nothing was tested or measured"
  exit 0
fi
export SWEBENCH_KERNEL_DEVICE=cuda:0
# Bugs put in on purpose, and what tests the emulation itself, need a compiler and the sources.
only_emulated=(--skip noticed --skip hopper:: --skip params:: --skip emulation:: --skip compiled)
"$here/kernel-bench" --probe | grep -q 'capability 9\.0' || only_emulated+=(--skip sm90)

step "kernels against their oracles"
"$here/kernel-tests" --test-threads 1 "${only_emulated[@]}" 2>&1 | tee "$out/kernels.log"

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -1 || true)
if [ -n "$sanitizer" ]; then
  : >"$out/sanitizer.log"
  for tool in memcheck racecheck synccheck initcheck; do
    step "compute-sanitizer $tool"
    "$sanitizer" --tool "$tool" --error-exitcode 9 "$here/kernel-tests" --test-threads 1 "${only_emulated[@]}" 2>&1 | tee -a "$out/sanitizer.log" | tail -3
  done
else
  missing "compute-sanitizer is not installed"
fi

step "benchmarks"
torch=()
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  torch=(--torch "$python")
else
  missing "$python has no torch that sees the device"
fi
name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr 'A-Z ' 'a-z-' || true)
result="$out/${name:-device}-$(date -u +%Y-%m-%d)"
"$here/kernel-bench" --json "$result.json" "${torch[@]}" | tee "$result.txt"
