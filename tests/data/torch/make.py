"""Writes the small torch and PEFT files that the weight readers are tested with; run it in this directory.

Needs torch, safetensors, peft and transformers. The files are committed, so tests need none of these.
"""

import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
HIDDEN, FFN = 8, 12


def fresh(name):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def views():
    """Aliased, sliced, transposed and strided tensors, each element type, and types that are not weights."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
    half = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    tensors = OrderedDict(
        base=base,
        alias=base,
        rows=base[1:3],
        columns=base[:, 2:4],
        transposed=base.t(),
        every_second=base[::2, ::3],
        one_column=base[:, 5],
        half=half,
        half_transposed=half.t(),
        bf16=torch.nn.Parameter(torch.tensor([1.5, -2.0, 3.25], dtype=torch.bfloat16)),
        permuted=torch.arange(24, dtype=torch.float32).reshape(2, 3, 4).permute(2, 0, 1),
        expanded=torch.tensor([[1.0], [2.0]]).expand(2, 3),
        scalar=torch.tensor(7.0),
        empty=torch.zeros(0, 4),
    )
    others = OrderedDict(
        position_ids=torch.arange(3),
        mask=torch.ones(2, dtype=torch.bool),
        float8=torch.zeros(2, dtype=torch.float8_e4m3fn),
    )
    path = fresh("views")
    state = OrderedDict(tensors, **others)
    state._metadata = OrderedDict({"": {"version": 1}})
    torch.save(state, path / "pytorch_model.bin")
    dense = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(dense, path / "model.safetensors")
    torch.save({"w": base, "t": base.t()}, fresh("protocol4") / "pytorch_model.bin", pickle_protocol=4)
    torch.save({"w": base}, fresh("legacy") / "pytorch_model.bin", _use_new_zipfile_serialization=False)


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


def refused():
    """A pickle that runs a command when Python loads it without weights_only."""
    torch.save({"w": Command()}, fresh("code") / "pytorch_model.bin")


def adapters():
    """LoRA adapters of a one-layer Llama, with the weights that PEFT makes of merging them."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
    )
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).state_dict()
    cases = {
        "plain": dict(r=4, lora_alpha=6, target_modules=["q_proj", "k_proj"]),
        "rslora": dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["down_proj"], fan_in_fan_out=True),
        "patterns": dict(
            r=2, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            rank_pattern={"q_proj": 5, r"^model\.layers\.\d+\.self_attn\.[kv]_proj": 3},
            alpha_pattern={"layers.0.self_attn.k_proj": 7, "j.v_proj": 100, "self_attn.o_proj": 1},
        ),
    }
    root = fresh("lora")
    used = set()
    for name, arguments in cases.items():
        model = LlamaForCausalLM(config)
        model.load_state_dict(base)
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **arguments))
        for parameter, value in adapted.named_parameters():
            if "lora_" in parameter:
                value.data = torch.randn_like(value)
        adapted.save_pretrained(root / name, safe_serialization=name != "rslora")
        # As a user would load it: a flag that saving changed must have the same effect here.
        path = root / name / "adapter_config.json"
        written = json.loads(path.read_text())
        written["base_model_name_or_path"] = "example/base"
        written["fan_in_fan_out"] = arguments.get("fan_in_fan_out", False)
        if name != "plain":
            written = {key: value for key, value in written.items() if value is not None}
        path.write_text(json.dumps(written, indent=1) + "\n")
        (root / name / "README.md").unlink(missing_ok=True)

        model = LlamaForCausalLM(config)
        model.load_state_dict(base)
        merged = PeftModel.from_pretrained(model, root / name).merge_and_unload().state_dict()
        changed = {key: value for key, value in merged.items() if not torch.equal(value, base[key])}
        assert changed
        used |= set(changed)
        save_file({key: value.contiguous() for key, value in changed.items()}, root / name / "merged.safetensors")
    save_file({key: base[key] for key in sorted(used)}, root / "model.safetensors")


if __name__ == "__main__":
    views()
    refused()
    adapters()
