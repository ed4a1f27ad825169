#!/usr/bin/env python3
"""Makes the model goldens: tiny random models and what Hugging Face transformers computes with them.

    python3 -m venv venv && venv/bin/pip install -r tests/data/goldens/requirements.txt
    venv/bin/python tests/data/goldens/make.py                  # everything
    venv/bin/python tests/data/goldens/make.py llama lora-plain # only these (a lora-* needs llama made before)

Each case becomes one directory in Hugging Face layout (config.json and weights, or an adapter) beside this
script, with the expected results in golden.safetensors; README.md describes the format.  All randomness comes
from fixed seeds, so a second run with the versions in requirements.txt writes the same bytes.

The weights are random but not small: norms and biases are far from 1 and 0 and attention is peaky, so that a
forgotten bias, norm, window or frequency scaling moves the logits visibly.  The script proves that for every
case by computing the long sequence once more for each of the case's `ablations`.
"""

import json
import re
import shutil
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

HERE = Path(__file__).resolve().parent
VOCAB = 80
LENGTHS = (1, 17, 70)
ALL_POSITIONS_UP_TO = 17  # longer sequences keep only the logits of their last positions
LAST_POSITIONS = 8
GREEDY_TOKENS = 24
MIN_MARGIN = 1e-2  # between the best two f32 logits at each greedy step
MIN_DISTINCT = 8  # tokens among the greedy ones: no dull repetition
MIN_ABLATION = 0.1  # largest change of a logit that each ablation must cause
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


# --------------------------------------------------------------------------------------------------------------
# Cases


@dataclass(frozen=True)
class Ablation:
    """A feature taken away: config keys to change (None removes one), tensors to neutralise (bias to 0, norm to 1)."""

    config: dict = field(default_factory=dict)
    neutral: str | None = None


@dataclass(frozen=True)
class Case:
    name: str
    config: dict
    dtype: str = "bfloat16"
    store: str = "safetensors"  # or "sharded", "bin"
    lengths: tuple[int, ...] = LENGTHS
    greedy: tuple[int, ...] = (2,)  # sequences that are continued
    greedy_logits: bool = False  # keep the logits of the greedy steps too
    extra_files: dict = field(default_factory=dict)
    ablations: dict[str, Ablation] = field(default_factory=dict)


class Null:
    """Stands for an explicit null in config.json."""


def config(model_type: str, architecture: str, dtype_key: str, dtype: str, **keys) -> dict:
    """A config.json; a key given as None is left out, a key given as Null is written as null."""
    result = {
        "architectures": [architecture],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 40,
        "max_position_embeddings": 256,
        "model_type": model_type,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
        dtype_key: dtype,
    } | keys
    return {key: None if value is Null else value for key, value in result.items() if value is not None}


def llama(dtype="bfloat16", **keys) -> dict:
    """The spelling of transformers before version 5: torch_dtype, rope_theta, rope_scaling."""
    return config("llama", "LlamaForCausalLM", "torch_dtype", dtype, **keys)


def new_llama(rope_parameters: dict, dtype="bfloat16", **keys) -> dict:
    """The spelling of transformers 5: dtype, rope_parameters."""
    return config("llama", "LlamaForCausalLM", "dtype", dtype, rope_parameters=rope_parameters, **keys)


def rope(rope_scaling: dict, **keys) -> dict:
    """A Llama with more frequencies per head, so that scalings that treat them differently show."""
    return llama(rope_theta=10000.0, rope_scaling=rope_scaling, head_dim=16, intermediate_size=24, **keys)


def new_rope(rope_parameters: dict, **keys) -> dict:
    return new_llama({"rope_theta": 10000.0} | rope_parameters, head_dim=16, intermediate_size=24, **keys)


NO_SCALING = {"scaling": Ablation({"rope_scaling": None, "rope_parameters": None})}

CASES = [
    Case(
        "llama",
        llama(dtype="float32", rope_theta=10000.0, rope_scaling=Null, num_key_value_heads=None, rms_norm_eps=1e-6),
        dtype="float32",
        ablations={"norms": Ablation(neutral="norm")},
    ),
    Case(
        "llama-gqa-tied",
        new_llama({"rope_theta": 10000.0, "rope_type": "default"}, tie_word_embeddings=True, head_dim=12),
        ablations={"rope": Ablation({"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}})},
    ),
    Case(
        "llama-attention-bias",
        llama(rope_theta=10000.0, attention_bias=True),
        ablations={f"{p} bias": Ablation(neutral=f"{p}_proj.bias") for p in ("q", "k", "v", "o")},
    ),
    Case(
        "llama-mlp-bias",
        llama(rope_theta=10000.0, mlp_bias=True),
        ablations={f"{p} bias": Ablation(neutral=f"{p}_proj.bias") for p in ("gate", "up", "down")},
    ),
    Case("llama-f16", llama(dtype="float16", rope_theta=10000.0), dtype="float16"),
    Case("llama-bf16", llama(rope_theta=10000.0, rms_norm_eps=1e-3)),
    Case("llama-sharded", llama(rope_theta=10000.0), store="sharded"),
    Case(
        "codellama",
        llama(rope_theta=1000000, rope_scaling=Null, max_position_embeddings=16384),
        ablations={"rope_theta": Ablation({"rope_theta": None})},
    ),
    Case(
        "swe-llama-bin",
        llama(
            rope_theta=1000000,
            rope_scaling=Null,
            max_position_embeddings=16384,
            num_key_value_heads=4,
            pretraining_tp=1,
            use_cache=True,
        ),
        store="bin",
        extra_files={
            "generation_config.json": {
                "_from_model_config": True,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "use_cache": ".cache",
            }
        },
    ),
    Case("rope-linear", rope({"type": "linear", "factor": 4.0}), ablations=NO_SCALING),
    Case(
        "rope-dynamic",
        rope({"type": "dynamic", "factor": 2.0}, max_position_embeddings=32),
        lengths=(1, 17, 70, 28, 32),
        greedy=(2, 3),
        greedy_logits=True,
        ablations=NO_SCALING,
    ),
    Case(
        "rope-llama3",
        new_rope(
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        ),
        ablations=NO_SCALING,
    ),
    Case(
        "rope-yarn",
        rope(
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "original_max_position_embeddings": 64,
            }
        ),
        ablations=NO_SCALING
        | {
            "attention factor": Ablation(
                {
                    "rope_scaling": {
                        "rope_type": "yarn",
                        "factor": 4.0,
                        "beta_fast": 4.0,
                        "beta_slow": 0.5,
                        "original_max_position_embeddings": 64,
                        "attention_factor": 1.0,
                    }
                }
            )
        },
    ),
    Case(
        "rope-yarn-mscale",
        new_rope(
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "mscale": 2.0,
                "mscale_all_dim": 0.5,
                "original_max_position_embeddings": 64,
                "truncate": False,
            }
        ),
        ablations=NO_SCALING
        | {
            "mscale": Ablation(
                {
                    "rope_parameters": {
                        "rope_theta": 10000.0,
                        "rope_type": "yarn",
                        "factor": 4.0,
                        "beta_fast": 4.0,
                        "beta_slow": 0.5,
                        "original_max_position_embeddings": 64,
                        "truncate": False,
                    }
                }
            ),
            "truncate": Ablation(
                {
                    "rope_parameters": {
                        "rope_theta": 10000.0,
                        "rope_type": "yarn",
                        "factor": 4.0,
                        "beta_fast": 4.0,
                        "beta_slow": 0.5,
                        "mscale": 2.0,
                        "mscale_all_dim": 0.5,
                        "original_max_position_embeddings": 64,
                    }
                }
            ),
        },
    ),
    # No original length: the frequencies are relative to max_position_embeddings; default betas.
    Case(
        "rope-yarn-attention-factor",
        rope({"type": "yarn", "factor": 4.0, "attention_factor": 1.4}, max_position_embeddings=128),
        ablations=NO_SCALING,
    ),
    Case(
        "mistral",
        config("mistral", "MistralForCausalLM", "torch_dtype", "bfloat16", rope_theta=10000.0, sliding_window=24),
        ablations={"window": Ablation({"sliding_window": Null}), "window size": Ablation({"sliding_window": 25})},
    ),
    Case(
        "mistral-full",
        config(
            "mistral",
            "MistralForCausalLM",
            "torch_dtype",
            "bfloat16",
            head_dim=12,
            rope_theta=1000000.0,
            sliding_window=Null,
        ),
    ),
    Case(
        "qwen2",
        config(
            "qwen2",
            "Qwen2ForCausalLM",
            "torch_dtype",
            "bfloat16",
            max_window_layers=1,
            rope_theta=1000000.0,
            sliding_window=24,
            tie_word_embeddings=True,
            use_sliding_window=False,
        ),
        ablations={f"{p} bias": Ablation(neutral=f"{p}_proj.bias") for p in ("q", "k", "v")},
    ),
    Case(
        "qwen2-window",
        config(
            "qwen2",
            "Qwen2ForCausalLM",
            "torch_dtype",
            "bfloat16",
            intermediate_size=24,
            max_window_layers=1,
            num_hidden_layers=3,
            rope_theta=10000.0,
            sliding_window=24,
            use_sliding_window=True,
        ),
        ablations={
            "window": Ablation({"use_sliding_window": False}),
            "full layer": Ablation({"max_window_layers": 0}),
            "windowed layer": Ablation({"max_window_layers": 2}),
        },
    ),
    Case(
        "qwen3",
        config(
            "qwen3",
            "Qwen3ForCausalLM",
            "dtype",
            "bfloat16",
            attention_bias=False,
            head_dim=16,
            layer_types=["sliding_attention", "full_attention"],
            rms_norm_eps=1e-6,
            rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"},
            sliding_window=24,
            use_sliding_window=True,
        ),
        ablations={
            "q norm": Ablation(neutral="q_norm"),
            "k norm": Ablation(neutral="k_norm"),
            "window": Ablation({"layer_types": None, "use_sliding_window": False}),
        },
    ),
]


@dataclass(frozen=True)
class Adapter:
    """A LoRA for the case `llama`.  `refused` ones have no golden: the engine has to turn them away."""

    name: str
    options: dict
    file: str = "adapter_model.safetensors"
    refused: bool = False


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS = [
    Adapter("lora-plain", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION}),
    Adapter("lora-bin", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION}, file="adapter_model.bin"),
    Adapter(
        "lora-rslora",
        {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": r".*\.(q_proj|down_proj|gate_proj)"},
    ),
    Adapter(
        "lora-patterns",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ATTENTION,
            "rank_pattern": {"v_proj": 6, "layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {r"layers\.\d+\.self_attn\.k_proj": 16, "model.layers.1.self_attn.v_proj": 3},
        },
    ),
    # peft switches the flag off with a warning for every torch.nn.Linear, and these models have no other layer.
    Adapter(
        "lora-fan-in-fan-out",
        {"r": 4, "lora_alpha": 8, "fan_in_fan_out": True, "target_modules": ["up_proj", "o_proj"]},
    ),
    Adapter("lora-refused-dora", {"r": 1, "use_dora": True, "target_modules": ["q_proj"]}, refused=True),
    Adapter(
        "lora-refused-modules-to-save",
        {"r": 1, "modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
        refused=True,
    ),
    Adapter("lora-refused-bias", {"r": 1, "bias": "all", "target_modules": ["q_proj"]}, refused=True),
]


# --------------------------------------------------------------------------------------------------------------
# Weights


def random_like(name: str, shape: torch.Size, seed_name: str, tied: bool) -> torch.Tensor:
    """Values for one tensor: they depend on the names and the shape only, so cases may differ by their config alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed_name}/{name}".encode()))
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1.0 + 0.4 * noise.clamp(-2, 2)
    if name.endswith(".bias"):
        return 0.5 * noise
    if "embed_tokens" in name:
        return noise * (0.4 if tied else 1.0)
    gain = 2.0 if "lm_head" in name else 1.5 if re.search("[qk]_proj", name) else 1.2
    return noise * gain / shape[-1] ** 0.5


def random_weights(case: Case) -> dict[str, torch.Tensor]:
    """The state dict that the case's checkpoint holds, in name order and in the checkpoint's dtype."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(auto_config(case.config))
    tied = case.config["tie_word_embeddings"]
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if tied:
        del shapes["lm_head.weight"]
    dtype = DTYPES[case.dtype]
    return {name: random_like(name, shape, "weights", tied).to(dtype) for name, shape in sorted(shapes.items())}


def auto_config(values: dict):
    values = dict(values)
    return AutoConfig.for_model(values.pop("model_type"), **values)


def shards(weights: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Two shards: everything up to the first layer's attention, and the rest."""
    first = {name: t for name, t in weights.items() if "embed" in name or "layers.0." in name}
    return [first, {name: t for name, t in weights.items() if name not in first}]


def write_weights(folder: Path, case: Case) -> None:
    weights = random_weights(case)
    if case.store == "safetensors":
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    if case.store == "bin":
        parts, suffix, stem = pickle_shards(weights), "bin", "pytorch_model"
    else:
        parts, suffix, stem = shards(weights), "safetensors", "model"
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"{stem}-{number:05}-of-{len(parts):05}.{suffix}"
        if case.store == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for part in parts for t in part.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / f"{stem}.{suffix}.index.json", index)


def pickle_shards(weights: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Shards as old checkpoints have them: shared storages, offsets, strides and the rotary frequencies."""
    first, second = shards(weights)
    # Two names, one tensor.
    move(second, first, "model.layers.1.mlp.gate_proj.weight")
    first["model.layers.1.mlp.gate_proj.weight"] = first["model.layers.0.mlp.gate_proj.weight"]
    # Two halves of one storage: the second starts at an offset.
    move(second, first, "model.layers.1.mlp.up_proj.weight")
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1)]
    first |= dict(zip(names, torch.stack([first[name] for name in names]), strict=True))
    # Stored column by column.
    for layer, part in enumerate((first, second)):
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        part[name] = part[name].t().contiguous().t()
        # No weights, but old checkpoints carry them.
        part[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 1e6 ** -(torch.arange(0, 8, 2) / 8)
    return [first, second]


def move(source: dict, target: dict, name: str) -> None:
    target[name] = source.pop(name)


# --------------------------------------------------------------------------------------------------------------
# Results


def load(folder: Path, dtype: torch.dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model.generation_config = GenerationConfig(do_sample=False)
    return model.eval()


def fresh_rope(model):
    """Forgets the length of earlier sequences, which dynamic scaling otherwise carries over."""
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(config=inner.config)
    return model


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    """One forward pass without a cache; the positions that a golden keeps."""
    result = fresh_rope(model)(ids[None], use_cache=False).logits[0]
    return result if len(ids) <= ALL_POSITIONS_UP_TO else result[-LAST_POSITIONS:]


def greedy(model, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """GREEDY_TOKENS tokens with a cache, never stopping, and the logits that each was chosen from."""
    result = fresh_rope(model).generate(
        ids[None],
        attention_mask=torch.ones_like(ids[None]),
        do_sample=False,
        max_new_tokens=GREEDY_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
        use_cache=True,
    )
    return result.sequences[0, len(ids) :], torch.cat(result.logits).float()


def margins(step_logits: torch.Tensor) -> torch.Tensor:
    best = step_logits.topk(2).values
    return best[:, 0] - best[:, 1]


def prompt(length: int, seed: int) -> torch.Tensor:
    """Token ids with the beginning-of-text token first."""
    generator = torch.Generator().manual_seed(1000 * length + seed)
    ids = torch.randint(3, VOCAB, (length,), generator=generator)
    ids[0] = 1
    return ids


def continued_prompt(model, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first prompt whose greedy continuation has clear choices and does not just repeat itself."""
    for seed in range(500):
        ids = prompt(length, seed)
        tokens, steps = greedy(model, ids)
        if margins(steps).min() >= MIN_MARGIN and len(tokens.unique()) >= MIN_DISTINCT:
            return ids, tokens, steps
    raise AssertionError("no prompt has clear margins")


def golden(full, half, lengths=LENGTHS, continued=(2,), greedy_logits=False) -> dict[str, torch.Tensor]:
    """The tensors of a golden, from the model in f32 and in bf16."""
    result = {}
    for number, length in enumerate(lengths):
        ids = prompt(length, 0)
        if number in continued:
            ids, tokens, steps = continued_prompt(full, length)
            result[f"greedy.{number}"] = tokens
            result[f"greedy_margin.{number}"] = margins(steps)
            if greedy_logits:
                result[f"greedy_logits.{number}"] = steps
        result[f"ids.{number}"] = ids
        result[f"logits.{number}"] = logits(full, ids)
        result[f"logits_bf16.{number}"] = logits(half, ids)
        assert result[f"logits_bf16.{number}"].dtype == torch.bfloat16
    return {name: result[name].contiguous() for name in sorted(result)}


def check_ablations(folder: Path, case: Case, expected: dict[str, torch.Tensor]) -> None:
    """Every feature that the case is about changes the logits of the long sequence."""
    weights = load(folder, torch.float32).state_dict()
    for label, ablation in case.ablations.items():
        removed = {key for key, value in ablation.config.items() if value is None}
        changed = {key: value for key, value in (case.config | ablation.config).items() if key not in removed}
        changed = {key: None if value is Null else value for key, value in changed.items()}
        model = AutoModelForCausalLM.from_config(auto_config(changed), attn_implementation="eager")
        state = dict(weights)
        for name in state:
            if ablation.neutral and re.search(ablation.neutral, name):
                state[name] = torch.full_like(state[name], 1.0 if "norm" in name else 0.0)
        model.load_state_dict(state)
        change = (logits(model.float().eval(), expected["ids.2"]) - expected["logits.2"]).abs().max().item()
        print(f"    without {label}: {change:.3f}")
        assert change >= MIN_ABLATION, (case.name, label, change)


def write_golden(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "golden.safetensors")
    error = max(
        (tensors[name.replace("logits", "logits_bf16")].float() - tensor).abs().max().item()
        for name, tensor in tensors.items()
        if name.startswith("logits.")
    )
    margin = min(tensors[name].min().item() for name in tensors if name.startswith("greedy_margin"))
    spread = tensors["logits.2"].std().item()
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name:28} {size:7} bytes  logit std {spread:.2f}  bf16 error {error:.3f}  margin {margin:.3f}")


# --------------------------------------------------------------------------------------------------------------
# Directories


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def empty_folder(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def make_case(case: Case) -> None:
    folder = empty_folder(case.name)
    write_json(folder / "config.json", case.config)
    write_weights(folder, case)
    tensors = golden(
        load(folder, torch.float32), load(folder, torch.bfloat16), case.lengths, case.greedy, case.greedy_logits
    )
    for name, value in case.extra_files.items():
        write_json(folder / name, value)
    write_golden(folder, tensors)
    check_ablations(folder, case, tensors)


def make_adapter(adapter: Adapter) -> None:
    folder = empty_folder(adapter.name)
    model = get_peft_model(load(HERE / "llama", torch.float32), LoraConfig(task_type="CAUSAL_LM", **adapter.options))
    for name, parameter in sorted(model.named_parameters()):
        if "lora_A" in name or "lora_B" in name:
            parameter.copy_(0.4 * random_like(name, parameter.shape, "adapter", False))
    model.save_pretrained(folder)
    if adapter.file.endswith(".bin"):
        (folder / "adapter_model.safetensors").unlink()
        torch.save(get_peft_model_state_dict(model), folder / adapter.file)
    (folder / "README.md").unlink(missing_ok=True)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "llama"
    settings["fan_in_fan_out"] = adapter.options.get("fan_in_fan_out", False)
    if isinstance(settings["target_modules"], list):
        settings["target_modules"].sort()
    write_json(folder / "adapter_config.json", settings)
    if adapter.refused:
        return
    # Read back what was written, merge in f32, and only then round for the bf16 run.
    merged = [
        PeftModel.from_pretrained(load(HERE / "llama", torch.float32), folder).merge_and_unload() for _ in range(2)
    ]
    tensors = golden(merged[0].eval(), merged[1].to(torch.bfloat16).eval())
    write_golden(folder, tensors)
    base = logits(load(HERE / "llama", torch.float32), tensors["ids.2"])
    change = (base - tensors["logits.2"]).abs().max().item()
    print(f"    without adapter: {change:.3f}")
    assert change >= MIN_ABLATION


def main(names: list[str]) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    unknown = set(names) - {item.name for item in (*CASES, *ADAPTERS)}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}")
    with torch.no_grad():
        for case in CASES:
            if not names or case.name in names:
                make_case(case)
        for adapter in ADAPTERS:
            if not names or adapter.name in names:
                make_adapter(adapter)


if __name__ == "__main__":
    main(sys.argv[1:])
