#!/usr/bin/env python3
"""The demo run with and without prompt lookup, in turn: generated tokens a second, end to end.

    cargo build --release
    python benches/prompt_lookup.py [--rounds 5] [--json FILE]

The time is that of the whole run but the loading: prompts are computed, too. Both ways write the same text, which is checked.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import peers


def run(lookup, batch_size):
    """Tokens a second over all demo instances, and their texts."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            peers.ROOT / "target/release/swebench-cli", "run-llama", "--log-format", "json",
            "--model-name-or-path", peers.ROOT / "tests/data/demo",
            "--dataset-path", peers.ROOT / "tests/data/swe-bench-lite-mit",
            "--output-dir", directory, "--prompt-lookup", str(lookup).lower(), "--batch-size", batch_size,
        ]  # fmt: skip
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
        result = next(event for line in reversed(log) if "seconds" in (event := json.loads(line)["event"]))
        lines = pathlib.Path(result["output_file"]).read_text().splitlines()
        texts = {line["instance_id"]: line["full_output"] for line in map(json.loads, lines)}
    return result["completion_tokens"] / result["seconds"], texts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write every round's figures to this file")
    args = parser.parse_args()
    results = {"1": [], "auto": []}
    for _ in range(args.rounds):
        for batch_size, rounds in results.items():
            (off, expected), (on, texts) = run(False, batch_size), run(True, batch_size)
            if texts != expected:
                raise SystemExit("prompt lookup changed a text")
            rounds.append({"off": off, "on": on})
    print(f"{peers.cpu()}; demo instances, medians of {args.rounds} rounds in turn.\n")
    print("| instances at once | without, tokens/s | with prompt lookup, tokens/s | ratio |")
    print("| --- | --- | --- | --- |")
    for batch_size, rounds in results.items():
        off, on = (statistics.median(rates[way] for rates in rounds) for way in ("off", "on"))
        ratio = statistics.median(rates["on"] / rates["off"] for rates in rounds)
        print(f"| {'one' if batch_size == '1' else 'all'} | {off:.0f} | {on:.0f} | {ratio:.2f} |")
    if args.json:
        args.json.write_text(json.dumps({"machine": peers.cpu(), "tokens_per_second": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
