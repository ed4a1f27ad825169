#!/usr/bin/env python3
"""The same work on swebench-cli, PyTorch and llama.cpp, side by side in one run.

    cargo build --release
    pip install numpy torch transformers
    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python gguf
    python benches/peers.py [--rounds 3] [--quantize int8] [--isa avx512 avx2] [--json FILE] [--write-readme]

All engines run a random model of one configuration on all processors: prefill of a prompt, then decoding after it. They take
turns, so that a machine whose speed drifts treats them alike; a ratio is the median of the rounds' ratios. A peer that is not
installed is left out with a note. llama.cpp reads its weights from files that are made in a temporary directory.
`--quantize int8` adds swebench-cli with 8-bit weights and llama.cpp with Q8_0, `--isa` swebench-cli held to an instruction set,
beside llama.cpp with all that the machine has. With --write-readme the table replaces the one
between the markers in README.md.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ("prefill", "decode")


class Swebench:
    """`swebench-cli bench`, a process for every round."""

    def __init__(self, args, quantize=None, isa=None):
        self.name = f"swebench-cli, {quantize or 'bf16'}" + (f" on {isa}" if isa else "")
        self.environment = os.environ | ({"SWEBENCH_CPU_ISA": isa} if isa else {})
        self.command = [
            ROOT / "target/release/swebench-cli", "bench", "--config", args.config, "--dtype", "bf16", "--json",
            "--prompt", str(args.prompt), "--gen", str(args.gen), "--depth", str(args.prompt), "--repetitions", "1",
        ] + (["--quantize", quantize] if quantize else [])  # fmt: skip

    def run(self):
        process = subprocess.run(self.command, env=self.environment, check=True, capture_output=True, text=True)
        report = json.loads(process.stdout)
        prefill, decode = report["rows"]
        return {
            "prefill": prefill["tokens_per_second"],
            "decode": decode["tokens_per_second"],
            "backend": report["backend"],
            "limits": {"prefill": prefill["limit"], "decode": decode["limit"]},
            "roofline": report["roofline"],
        }


class Torch:
    """A transformers model with random weights from the same configuration."""

    def __init__(self, args):
        import torch
        import transformers

        self.torch = torch
        self.name = f"PyTorch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, bf16"
        config = transformers.LlamaConfig(**args.model)
        torch.set_num_threads(args.threads)
        torch.set_default_dtype(torch.bfloat16)
        self.model = transformers.LlamaForCausalLM(config).eval()
        self.ids = torch.arange(args.prompt)[None] % 61
        self.gen = args.gen

    def run(self):
        with self.torch.inference_mode():
            self.model(self.ids[:, :16], logits_to_keep=1)
            started = time.perf_counter()
            out = self.model(self.ids, use_cache=True, logits_to_keep=1)
            prefill = time.perf_counter() - started
            token = self.torch.tensor([[1]])
            started = time.perf_counter()
            for _ in range(self.gen):
                out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
            decode = time.perf_counter() - started
        return {"prefill": self.ids.shape[1] / prefill, "decode": self.gen / decode}


class LlamaCpp:
    """llama.cpp through its C functions, with weights of `kind` ("bf16" or "q8_0")."""

    def __init__(self, args, kind):
        import llama_cpp
        import random_model

        self.lib = llama_cpp
        version = importlib.metadata.version("llama-cpp-python")
        self.name = f"llama.cpp (llama-cpp-python {version}), {kind.upper() if kind == 'q8_0' else kind}"
        path = pathlib.Path(args.directory) / f"{kind}.gguf"
        random_model.write_gguf(args.model, path, kind)
        self.silence = llama_cpp.llama_log_callback(lambda level, text, user: None)
        llama_cpp.llama_log_set(self.silence, None)
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        self.prompt = [position % 61 for position in range(args.prompt)]
        self.gen = args.gen
        self.params = llama_cpp.llama_context_default_params()
        self.params.n_ctx = args.prompt + args.gen + 64
        self.params.n_batch = args.prompt
        self.params.n_threads = self.params.n_threads_batch = args.threads
        # Flash attention pays on some processors and costs on others: llama.cpp runs the way it is faster here.
        trials = {flash: self.seconds(flash) for flash in (0, 1)}
        self.params.flash_attn_type = min(trials, key=trials.get)
        self.name += f", flash attention {'on' if self.params.flash_attn_type else 'off'}"
        self.open()

    def open(self):
        """Makes the context."""
        self.context = self.lib.llama_init_from_model(self.model, self.params)
        if not self.context:
            raise RuntimeError(f"{self.name} does not start")

    def seconds(self, flash):
        """The time that the whole work takes with or without flash attention."""
        self.params.flash_attn_type = flash
        self.open()
        rates = self.run()
        self.lib.llama_free(self.context)
        return len(self.prompt) / rates["prefill"] + self.gen / rates["decode"]

    def decode(self, tokens):
        """One call; only the last token's logits are computed."""
        array = (self.lib.llama_token * len(tokens))(*tokens)
        if self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")
        self.lib.llama_synchronize(self.context)

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)

    def run(self):
        self.clear()
        self.decode(self.prompt[:16])
        self.clear()
        started = time.perf_counter()
        self.decode(self.prompt)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(self.gen):
            self.decode([1])
        decode = time.perf_counter() - started
        return {"prefill": len(self.prompt) / prefill, "decode": self.gen / decode}


def engines(args):
    """Ours and the peers that are installed, in groups of one precision, ours first."""
    groups = [[Swebench(args)]]
    wanted = [lambda: Torch(args), lambda: LlamaCpp(args, "bf16")]
    if args.quantize:
        groups.append([Swebench(args, args.quantize)])
    for group, makers in zip(groups, [wanted, [lambda: LlamaCpp(args, "q8_0")]]):
        for make in makers:
            try:
                group.append(make())
            except ImportError as error:
                print(f"left out: {error}", file=sys.stderr)
    llama_cpp = [engine for engine in groups[0] if isinstance(engine, LlamaCpp)]
    return groups + [[Swebench(args, isa=isa), *llama_cpp] for isa in args.isa]


def measure(groups, rounds):
    """Results of every engine by name, one a round, in turns."""
    engines = {engine.name: engine for group in groups for engine in group}
    results = {name: [] for name in engines}
    for number in range(rounds):
        for name, engine in engines.items():
            result = engine.run()
            results[name].append(result)
            rates = ", ".join(f"{test} {result[test]:.1f}" for test in TESTS)
            print(f"round {number + 1}: {name}: {rates} tokens/s", file=sys.stderr)
    return results


def table(args, groups, results):
    """Medians, and the medians of the rounds' ratios to ours."""

    def median(values):
        return statistics.median(values)

    ours = results[groups[0][0].name]
    lines = [
        f"{cpu()}, {ours[0]['backend']}; {args.prompt:,} tokens of context, medians of {args.rounds} rounds in turn.",
        "",
        "| | prefill, tokens/s | swebench-cli is faster by | decode, tokens/s | swebench-cli is faster by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for group in groups:
        first = results[group[0].name]
        for engine in group:
            cells = [engine.name]
            for test in TESTS:
                rates = [result[test] for result in results[engine.name]]
                ratio = median(mine[test] / rate for mine, rate in zip(first, rates))
                cells += [f"{median(rates):.1f}", "" if engine is group[0] else f"{ratio:.2f} ×"]
            lines.append(f"| {' | '.join(cells)} |")
        if first[0]["roofline"]:
            # The highest, as in `bench`: a measurement of a busy machine reads too low.
            limits = [max(result["limits"][test] for result in first) for test in TESTS]
            lines.append(f"| *limit of the machine, {group[0].name.split(', ')[1]}* | {limits[0]:.1f} | | {limits[1]:.1f} | |")
    return "\n".join(lines)


def cpu():
    """The processor's name and the number of processors that this process may use."""
    name = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{name[1] if name else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "benches/configs/llama-1.1b.json"))
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--gen", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the peers")
    parser.add_argument("--quantize", choices=("int8",))
    parser.add_argument("--isa", nargs="+", default=[], help="instruction sets, as SWEBENCH_CPU_ISA names them")
    parser.add_argument("--json", type=pathlib.Path, help="write every round's figures to this file")
    parser.add_argument("--write-readme", action="store_true")
    args = parser.parse_args()
    args.model = json.loads(pathlib.Path(args.config).read_text())

    with tempfile.TemporaryDirectory() as args.directory:
        groups = engines(args)
        results = measure(groups, args.rounds)
    text = table(args, groups, results)
    print(text)
    if args.json:
        report = {"machine": cpu(), "prompt": args.prompt, "gen": args.gen, "rounds": results}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.write_readme:
        readme = ROOT / "README.md"
        marked = r"(<!-- peers.py -->\n).*?(<!-- /peers.py -->)"
        readme.write_text(re.sub(marked, lambda m: f"{m[1]}{text}\n{m[2]}", readme.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
