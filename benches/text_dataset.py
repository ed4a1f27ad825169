#!/usr/bin/env python3
"""Measures `make-datasets create-text-dataset`: oracle prompts a second, from one bare clone.

    python benches/text_dataset.py [--repository DIR] [--instances N] [--rounds N] [--cli PATH]

Instances are made of a repository's own history (this one's by default): every commit is a gold patch on
its parent. Prints the median over the rounds, process start and writing included, as JSON.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def git(repository, *args):
    command = ["git", "-C", str(repository), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout


def instances(repository, count):
    """`count` rows, from the newest commit on, and again from there when the history is shorter."""
    rows = []
    for line in git(repository, "log", "--no-merges", "--min-parents=1", "--format=%H %P %s").splitlines():
        commit, parent, subject = line.split(" ", 2)
        patch = git(repository, "diff", parent, commit)
        if "GIT binary patch" in patch or "Binary files" in patch:
            continue
        rows.append(
            {
                "repo": "bench/bench",
                "base_commit": parent,
                "problem_statement": subject,
                "patch": patch,
            }
        )
        if len(rows) == count:
            break
    return [{"instance_id": f"bench__bench-{i}", **rows[i % len(rows)]} for i in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=ROOT)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cli", type=Path, default=ROOT / "target/release/swebench-cli")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        clone = directory / "mirrors" / "bench__bench.git"
        subprocess.run(["git", "clone", "--quiet", "--bare", str(args.repository), str(clone)], check=True)
        rows = instances(clone, args.instances)
        (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rates = []
        for _ in range(args.rounds):
            out = directory / "out"
            shutil.rmtree(out, ignore_errors=True)
            command = [args.cli, "make-datasets", "create-text-dataset", "-q", "--splits", "test"]
            command += ["--dataset-name-or-path", directory / "rows.jsonl", "--output-dir", out]
            command += ["--mirror-dir", directory / "mirrors", "--output-format", "parquet"]
            start = time.monotonic()
            result = subprocess.run(command, capture_output=True, text=True)
            seconds = time.monotonic() - start
            if result.returncode not in (0, 3):
                raise SystemExit(result.stderr)
            rates.append(len(rows) / seconds)
        figures = {
            "instances": len(rows),
            "instances_per_second": round(statistics.median(rates), 1),
            "spread": [round(min(rates), 1), round(max(rates), 1)],
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
