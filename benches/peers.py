#!/usr/bin/env python3
"""The same work on swebench-cli and on PyTorch, side by side in one run.

    cargo build --release
    pip install torch transformers
    python benches/peers.py [--config benches/configs/llama-1.1b.json] [--prompt 2048] [--gen 16] [--write-readme]

Both sides run the same random model in bf16: prefill of a prompt, then decoding after it. The sides take turns, so that
a machine whose speed drifts treats them alike; the medians and their ratio are printed. With --write-readme the table
replaces the one between the markers in README.md.
"""

import argparse
import json
import pathlib
import platform
import re
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def ours(args):
    """One run of `swebench-cli bench`: rates by test, and the memory rate of the same run."""
    command = [
        ROOT / "target/release/swebench-cli", "bench", "--config", args.config, "--dtype", "bf16", "--json",
        "--prompt", str(args.prompt), "--gen", str(args.gen), "--depth", str(args.prompt), "--repetitions", "1",
    ]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    prefill, decode = (row["tokens_per_second"] for row in report["rows"])
    return {"prefill": prefill, "decode": decode, "limit": report["rows"][1]["limit"], "backend": report["backend"]}


class Torch:
    """A transformers model with random weights from the same configuration."""

    def __init__(self, args):
        import torch
        import transformers

        self.torch = torch
        self.name = f"PyTorch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
        config = transformers.LlamaConfig(**json.loads(pathlib.Path(args.config).read_text()))
        torch.set_default_dtype(torch.bfloat16)
        self.model = transformers.LlamaForCausalLM(config).eval()
        self.ids = torch.arange(args.prompt)[None] % 61
        self.args = args

    def run(self):
        with self.torch.inference_mode():
            started = time.perf_counter()
            out = self.model(self.ids, use_cache=True, logits_to_keep=1)
            prefill = self.args.prompt / (time.perf_counter() - started)
            token = self.torch.tensor([[1]])
            started = time.perf_counter()
            for _ in range(self.args.gen):
                out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
            decode = self.args.gen / (time.perf_counter() - started)
        return {"prefill": prefill, "decode": decode}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "benches/configs/llama-1.1b.json"))
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--gen", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write-readme", action="store_true")
    args = parser.parse_args()

    torch = Torch(args)
    rounds = [(ours(args), torch.run()) for _ in range(args.rounds)]

    def median(side, key):
        return statistics.median(result[side][key] for result in rounds)

    backend = rounds[0][0]["backend"]
    lines = [
        f"{platform.system()} {platform.machine()}, {backend}; 1.1 B parameters, bf16, {args.prompt} tokens of context;"
        f" medians of {args.rounds} runs in turn.",
        "",
        f"| | swebench-cli | {torch.name} | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for key in ("prefill", "decode"):
        mine, theirs = median(0, key), median(1, key)
        lines.append(f"| {key}, tokens/s | {mine:.1f} | {theirs:.1f} | {mine / theirs:.2f} |")
    lines.append(f"| decode limit by memory rate, tokens/s | {median(0, 'limit'):.1f} | | |")
    table = "\n".join(lines)
    print(table)
    if args.write_readme:
        readme = ROOT / "README.md"
        marked = r"(<!-- peers.py -->\n).*?(<!-- /peers.py -->)"
        text = re.sub(marked, lambda m: f"{m[1]}{table}\n{m[2]}", readme.read_text(), flags=re.S)
        readme.write_text(text)


if __name__ == "__main__":
    main()
