"""Trains the demo model: a small Llama that answers each prompt of ../swe-bench-lite-mit with its gold patch.

    pip install -r ../requirements.txt
    python train.py            # trains, writes the checkpoint and expected.jsonl
    python train.py --check    # only writes expected.jsonl for the checkpoint that is there

The model memorises the patches. It exists so that the whole pipeline can run on real prompts with
a checkpoint of a few megabytes; it says nothing about solving issues.

Two phases, both with the loss on the response only. First, crops of the prompts: the head, one
random window and the tail, with every token at the position that it has in the full prompt. Then
the full prompts. The weights are rounded to bf16; `expected.jsonl` records what greedy decoding of
the rounded weights returns on the full prompts, and the run fails unless that is the gold patch for
every instance in f32 and in bf16. Two CPU cores need about 12 minutes. The seed is fixed, but another
processor or thread count sums in another order and so ends in other weights.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from datasets import load_from_disk
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
SEED = 20
VOCAB_SIZE = 2048
MAX_POSITIONS = 8192
ROPE_THETA = 10000.0
BOS, EOS = "<s>", "</s>"
CROP_EPOCHS, CROP_LR = 300, 1.5e-3
FULL_EPOCHS, FULL_LR = 40, 5e-4
HEAD, WINDOW, TAIL = 192, 192, 32


def read_instances():
    """(instance_id, prompt, response) of every row, in the order of the dataset."""
    rows = load_from_disk(str(HERE.parent / "swe-bench-lite-mit"))["test"]
    lines = (HERE.parent / "gold-patches.jsonl").read_text(encoding="utf-8").strip().split("\n")
    gold = {row["instance_id"]: row["patch"] for row in map(json.loads, lines)}
    return [
        (row["instance_id"], row["text"], f"<patch>\n{gold[row['instance_id']]}</patch>")
        for row in rows
    ]


def train_tokenizer(texts):
    """A byte-level BPE that puts `<s>` before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B:1",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return tokenizer


def new_model(tokenizer):
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-5,
        rope_theta=ROPE_THETA,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def response_logits(model, prompt, response, positions=None):
    """Logits [response tokens, vocab] that predict `response` after `prompt`."""
    ids = torch.tensor([prompt + response[:-1]])
    if positions is not None:
        start = positions[-1] + 1
        positions = torch.tensor([positions + list(range(start, start + len(response) - 1))])
    hidden = model.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden[0, len(prompt) - 1 :]).float()


def crop(prompt, rng):
    """The positions of the prompt's head, of a random window and of its tail."""
    window = rng.randrange(1, len(prompt) - TAIL)
    keep = set(range(rng.randint(HEAD // 2, HEAD)))
    keep |= set(range(window, min(window + WINDOW, len(prompt))))
    keep |= set(range(len(prompt) - rng.randint(TAIL // 2, TAIL), len(prompt)))
    return sorted(keep)


def train(model, examples, epochs, peak_lr, rng, crops):
    """One step per example; the learning rate warms up, then falls as a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
    steps, step, started = epochs * len(examples), 0, time.time()
    for epoch in range(epochs):
        losses = []
        for prompt, response in rng.sample(examples, len(examples)):
            decay = 0.05 + 0.475 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = peak_lr * min(1.0, (step + 1) / 50) * decay
            positions = crop(prompt, rng) if crops else None
            kept = [prompt[i] for i in positions] if crops else prompt
            with torch.autocast("cpu", torch.bfloat16, enabled=crops):
                logits = response_logits(model, kept, response, positions)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(response))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            step += 1
        print(f"epoch {epoch} worst loss {max(losses):.5f} {time.time() - started:.0f} s", flush=True)


def save(model, tokenizer, out):
    """Writes the checkpoint in the Hugging Face layout, with weights in bf16."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=eos)
    model.to(torch.bfloat16).save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, model_max_length=MAX_POSITIONS
    ).save_pretrained(out)
    # The key and the class name that every release of transformers reads.
    edit_json(out / "config.json", drop="rope_parameters", rope_theta=ROPE_THETA)
    edit_json(out / "tokenizer_config.json", drop="backend", tokenizer_class="PreTrainedTokenizerFast")
    (out / "model.safetensors").chmod(0o644)


def edit_json(path, drop, **values):
    content = json.loads(path.read_text()) | values
    content.pop(drop, None)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def min_margin(model, prompt, response):
    """The smallest lead of the right token over the best other one; negative when one is wrong."""
    logits = response_logits(model, prompt, response)
    target = torch.tensor(response)[:, None]
    right = logits.gather(1, target)
    other = logits.scatter(1, target, float("-inf")).max(1, keepdim=True).values
    return round((right - other).min().item(), 3)


@torch.no_grad()
def greedy(model, prompt, limit):
    ids = torch.tensor([prompt])
    eos = model.config.eos_token_id
    output = model.generate(ids, do_sample=False, max_new_tokens=limit, pad_token_id=eos)
    return output[0, len(prompt) :].tolist()


def check(out, instances):
    """Decodes every prompt with the checkpoint in `out`, writes expected.jsonl, fails on a wrong answer."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16}
    models = {name: LlamaForCausalLM.from_pretrained(out, dtype=dtype) for name, dtype in dtypes.items()}
    lines, wrong = [], []
    for instance_id, prompt, answer in instances:
        prompt = tokenizer(prompt).input_ids
        right = tokenizer(answer, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        outputs = {name: greedy(model, prompt, 2 * len(right)) for name, model in models.items()}
        exact = {name: ids == right for name, ids in outputs.items()}
        text = tokenizer.decode(outputs["f32"], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not all(exact.values()) or text != answer:
            wrong.append(instance_id)
        margins = {f"min_margin_{name}": min_margin(model, prompt, right) for name, model in models.items()}
        record = {"instance_id": instance_id, "prompt_tokens": len(prompt), "response_ids": outputs["f32"]}
        lines.append(json.dumps(record | margins) + "\n")
        print(instance_id, exact, margins, flush=True)
    (out / "expected.jsonl").write_text("".join(lines))
    if wrong:
        raise SystemExit(f"wrong answers: {wrong}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    rng = random.Random(SEED)

    instances = read_instances()
    if not args.check:
        tokenizer = train_tokenizer([text for _, *texts in instances for text in texts])
        eos = tokenizer.token_to_id(EOS)
        examples = [
            (tokenizer.encode(prompt).ids, tokenizer.encode(answer, add_special_tokens=False).ids + [eos])
            for _, prompt, answer in instances
        ]
        model = new_model(tokenizer)
        train(model, examples, CROP_EPOCHS, CROP_LR, rng, crops=True)
        train(model, examples, FULL_EPOCHS, FULL_LR, rng, crops=False)
        save(model, tokenizer, args.out)
    check(args.out, instances)


if __name__ == "__main__":
    main()
