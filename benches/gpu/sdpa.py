"""Times PyTorch's scaled_dot_product_attention: reads a shape a line as JSON, answers the seconds of each backend that takes it."""
import json
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"torch flash": SDPBackend.FLASH_ATTENTION, "torch cudnn": SDPBackend.CUDNN_ATTENTION}
ROUNDS = 9
ROUND_SECONDS = 0.01


def measure(backend, inputs, causal, grouped):
    def run(launches):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for launch in range(launches):
            q, k, v = inputs[launch % len(inputs)]
            torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / launches

    with sdpa_kernel(backend):
        run(len(inputs))
        launches = min(max(int(ROUND_SECONDS / run(len(inputs))) + 1, len(inputs)), 10_000)
        return statistics.median(run(launches) for _ in range(ROUNDS))


def answer(shape):
    def random(heads, tokens):
        return torch.rand(1, heads, tokens, shape["head_dim"], device="cuda", dtype=torch.bfloat16) * 2 - 1

    inputs = [
        (random(shape["num_heads"], shape["query_len"]), random(shape["num_kv_heads"], shape["kv_len"]), random(shape["num_kv_heads"], shape["kv_len"]))
        for _ in range(shape["turns"])
    ]
    seconds = {}
    for name, backend in BACKENDS.items():
        try:
            seconds[name] = measure(backend, inputs, shape["query_len"] > 1, shape["num_heads"] != shape["num_kv_heads"])
        except RuntimeError as error:
            print(f"{name} does not take {shape}: {error}", file=sys.stderr)
    return seconds


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
