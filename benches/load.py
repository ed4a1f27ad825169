#!/usr/bin/env python3
"""Loading a checkpoint beside reading its file, and the memory that the loaded model takes.

    cargo build --release
    pip install numpy
    python benches/load.py [--rounds 5] [--json FILE]

A random model is written as one safetensors file to a temporary directory. Then, in turn: the file is read and thrown away
as `cat FILE > /dev/null` does, read into memory that is kept, and loaded by `swebench-cli bench`; with the file in the page
cache, and after it was dropped from there. Medians of the seconds, and of the rounds' ratios.
"""

import argparse
import json
import mmap
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import peers
import random_model


def read_and_drop(path):
    """Seconds to read the file piece by piece."""
    started = time.perf_counter()
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def read_and_keep(path):
    """Seconds to read the file into fresh memory, huge pages where the system has them."""
    size = path.stat().st_size
    started = time.perf_counter()
    with path.open("rb", buffering=0) as file, mmap.mmap(-1, size) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(memory)
        done = 0
        while done < size:
            done += file.readinto(view[done:])
        seconds = time.perf_counter() - started
        view.release()
    return seconds


def load(path, memory):
    """Seconds until the model is ready; fills in what it takes in memory."""
    command = [
        peers.ROOT / "target/release/swebench-cli", "bench", "--model", path.parent, "--json",
        "--prompt", "2048", "--gen", "1", "--depth", "2047", "--repetitions", "1",
    ]  # fmt: skip
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    memory.update(report["memory"])
    return report["load_seconds"]


def drop_from_cache(path):
    """The next read comes from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(peers.ROOT / "benches/configs/llama-1.1b.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write every round's figures to this file")
    args = parser.parse_args()
    config = json.loads(pathlib.Path(args.config).read_text())

    memory, results = {}, {"warm": [], "cold": []}
    with tempfile.TemporaryDirectory() as directory:
        path = random_model.write_safetensors(config, directory)
        size = path.stat().st_size
        ways = {"read": read_and_drop, "read into memory": read_and_keep, "load": lambda path: load(path, memory)}
        drop_from_cache(path)
        for _ in range(args.rounds):
            for state, rounds in results.items():
                figures = {}
                for way, run in ways.items():
                    drop_from_cache(path) if state == "cold" else read_and_drop(path)
                    figures[way] = run(path)
                rounds.append(figures)

    print(f"{peers.cpu()}; {size / 1e9:.2f} GB, medians of {args.rounds} rounds in turn.\n")
    print("| page cache | read, s | read into memory, s | load, s | load / read | load / read into memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for state, rounds in results.items():
        cells = [f"{statistics.median(figures[way] for figures in rounds):.2f}" for way in ways]
        for way in ("read", "read into memory"):
            cells.append(f"{statistics.median(figures['load'] / figures[way] for figures in rounds):.2f}")
        print(f"| {state} | {' | '.join(cells)} |")
    kept = memory["weights"] + memory["kv_cache"]
    print(f"\nmemory: weights {memory['weights'] / 1e9:.2f} GB, cache {memory['kv_cache'] / 1e9:.2f} GB,"
          f" peak {memory['peak'] / 1e9:.2f} GB: {memory['peak'] / kept:.2f} of weights and cache")  # fmt: skip
    if args.json:
        report = {"machine": peers.cpu(), "file_bytes": size, "seconds": results, "memory": memory}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
