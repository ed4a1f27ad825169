#!/usr/bin/env python3
"""Makes the tokenizer goldens: small trained tokenizers and what Python makes of many strings with them.

Two runs, because transformers 5 has no slow (sentencepiece) LlamaTokenizer any more:

    python3 -m venv venv4 && venv4/bin/pip install -r tests/data/goldens/requirements-tokenizers.txt
    venv4/bin/python tests/data/goldens/make_tokenizers.py   # trains, writes everything
    venv/bin/python tests/data/goldens/make_tokenizers.py    # the environment of make.py: adds where 5 differs

README.md describes the files.  The training text is made here from fixed seeds, and training is
deterministic, so running both again writes the same bytes.
"""

import io
import json
import random
import shutil
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent / "tokenizers"
MAJOR = int(transformers.__version__.split(".")[0])
SPM_PIECES = 512
BYTE_LEVEL_TOKENS = 512

SENTENCES = [
    "The parser reads one line at a time and keeps the rest for later.",
    "When the index is out of range, an error is raised with the name of the file.",
    "We should return an empty list here instead of None, because callers iterate over it.",
    "This change fixes the issue where the cache was never cleared after a request.",
    "Please add a test for the case in which the value is missing from the table.",
    "Das Café liegt in der Nähe; naïve Lösungen wären schön.",
    "日本語の文字 中文字符 한국어 русский текст ελληνικά",
]
CODE = [
    "def {a}(self, {b}=None):\n    if {b} is None:\n        return self.{c}\n    return {b}.{c}({n})\n",
    "class {A}(object):\n    def __init__(self, {a}, {b}):\n        self.{a} = {a}\n        self.{b} = {b}\n",
    "for {a} in range({n}):\n    {b}[{a}] += {c}({a} * {n})\n",
    "import {a}\nfrom {b}.{c} import {A}\n",
    "diff --git a/{a}/{b}.py b/{a}/{b}.py\n--- a/{a}/{b}.py\n+++ b/{a}/{b}.py\n"
    "@@ -{n},7 +{n},8 @@\n-    {c}\n+\t{c}()\n",
    "    try:\n        {a} = {b}['{c}']\n    except KeyError as error:\n        raise ValueError(error)\n",
]
WORDS = "value index request response path name token result items config model state error cache line".split()

TEXTS = [
    "",
    "a",
    " ",
    "  ",
    "   ",
    "                 ",
    "\n",
    "\n\n\n",
    "\t",
    "\r\n",
    " \n \n",
    "Hello, world!",
    " Hello",
    "  Hello",
    "Hello ",
    "Hello  ",
    "a  b   c    d",
    "The value is missing from the table.",
    "return self.cache",
    "def name(self, value=None):\n    if value is None:\n        return self.index\n",
    "\tif x:\n\t\treturn 12345\n",
    "if x:\r\n    pass\r\n",
    "--- a/path/name.py\n+++ b/path/name.py\n@@ -10,7 +10,8 @@\n-    value\n+    value()\n",
    "<patch>\n--- a/x.py\n+++ b/x.py\n</patch>",
    "a<patch>b",
    "a <patch> b",
    "a  <patch>  b",
    "<patch>",
    "<patch><patch>",
    " <patch>",
    "<patch> ",
    "<pad>",
    "x<pad>y <patch> z",
    "a <strip> b",
    "\n<strip>\n  b",
    "<strip>",
    "<s>",
    "</s>",
    "<unk>",
    "<s> Hello</s>",
    "Hello</s> world",
    "</s></s>\n",
    "< s >",
    "<s",
    "<|fim|>",
    "a<|fim|>b <|fim|> c",
    "<0x41>",
    "▁",
    "▁▁Hello",
    "a▁b",
    "café naïve Café",
    "cafe\u0301",
    "日本語",
    "日本語の文字 mixed 中文",
    "русский Ελληνικά עברית العربية",
    "🙂",
    "🙂👩‍👩‍👧🏽 ok",
    "ﬁ ½ Ⅳ ＡＢＣ",
    "\u00a0nbsp\u00a0",
    "\u3000wide\u2003em\u200bzero",
    "\x00\x01\x7f",
    "\x1b[31mred\x1b[0m",
    "\ufeffbom",
    "1234567890",
    "3.14159e-10 0x7fff 1_000",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "selfselfselfself.self",
    "____init____",
    "x = {'a': [1, 2], \"b\": (3,)}  # comment",
    "I'm you're WE'LL it's",
    "https://example.org/a/b?c=d&e=f#g",
    "\\n is not a newline \\\\",
    "line\u2028separator\u0085next",
]

# Generated ids, decoded on their own: continuations, cut characters, special tokens.  Names stand for tokens.
DECODES = [
    [],
    ["<s>"],
    ["</s>"],
    ["<s>", "</s>"],
    ["a"],
    [" a"],
    [" a", "a", " a"],
    ["</s>", " a"],
    ["a", "</s>", "a", " a"],
    ["<patch>", "a", "<patch>", " a"],
    [" ", "a"],
    ["\n", "a", "\n"],
    [0xF0, 0x9F, 0x99, 0x82],
    ["a", 0xF0, 0x9F, 0x99],
    ["a", 0xF0, 0x9F, "a"],
    [0x80, 0xFF, "a"],
    [0xC3, 0xA9, 0xC3, " a"],
]


def corpus() -> list[str]:
    """Lines of made-up prose and code."""
    rng = random.Random(20)
    lines = []
    for _ in range(400):
        lines.append(" ".join(rng.sample(SENTENCES, 2)))
        a, b, c = rng.sample(WORDS, 3)
        code = rng.choice(CODE).format(a=a, b=b, c=c, A=a.title(), n=rng.randrange(1000))
        lines.extend(code.splitlines())
    return lines


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_cases(path: Path, head: dict, cases: list[dict], decodes: list[dict]) -> None:
    """Like JSON from json.dumps, with one case per line; non-ASCII escaped to keep control characters visible."""

    def rows(items: list[dict]) -> str:
        return ",\n".join(json.dumps(item, sort_keys=True, separators=(",", ":")) for item in items)

    text = json.dumps(head, sort_keys=True)[:-1]
    path.write_text(f'{text},\n"cases": [\n{rows(cases)}\n],\n"decodes": [\n{rows(decodes)}\n]}}\n', encoding="ascii")


def empty_folder(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# --------------------------------------------------------------------------------------------------------------
# SentencePiece


def added_token(content: str, **flags) -> dict:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False} | flags


def old_token(content: str) -> dict:
    """A token in tokenizer_config.json as transformers wrote it before added_tokens_decoder."""
    return {"__type": "AddedToken"} | added_token(content, normalized=True)


BASE_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "model_max_length": 4096,
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}
SPECIAL_TOKENS_MAP = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
ADDED = {"<patch>": SPM_PIECES, "<pad>": SPM_PIECES + 1}
GENERATION_CONFIG = {"bos_token_id": 1, "eos_token_id": 2}

# Each is a directory with the same tokenizer.model: what the JSON files beside it hold.
SPM_VARIANTS = {
    "spm": {
        "added_tokens.json": ADDED,
        "generation_config.json": GENERATION_CONFIG,
        "special_tokens_map.json": SPECIAL_TOKENS_MAP,
        "tokenizer_config.json": BASE_CONFIG
        | {
            "bos_token": old_token("<s>"),
            "eos_token": old_token("</s>"),
            "legacy": True,
            "pad_token": None,
            "unk_token": old_token("<unk>"),
        },
    },
    "spm-new": {
        "generation_config.json": GENERATION_CONFIG,
        "special_tokens_map.json": SPECIAL_TOKENS_MAP,
        "tokenizer_config.json": BASE_CONFIG
        | {
            "added_tokens_decoder": {
                "0": added_token("<unk>", special=True),
                "1": added_token("<s>", special=True),
                "2": added_token("</s>", special=True),
                str(SPM_PIECES): added_token("<patch>", special=False),
                str(SPM_PIECES + 1): added_token("<pad>", special=True),
                str(SPM_PIECES + 2): added_token("<strip>", special=False, lstrip=True, rstrip=True),
            },
            "legacy": False,
        },
    },
    "spm-no-bos": {
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": [2, SPM_PIECES]},
        "tokenizer_config.json": BASE_CONFIG | {"add_bos_token": False, "legacy": None},
    },
}


def train_sentencepiece() -> bytes:
    """A model with Llama's options, and one user-defined symbol."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=True,
        byte_fallback=True,
        character_coverage=0.998,
        max_sentencepiece_length=16,
        minloglevel=2,
        model_type="bpe",
        model_writer=model,
        normalization_rule_name="identity",
        num_threads=1,
        remove_extra_whitespaces=False,
        sentence_iterator=iter(corpus()),
        split_digits=True,
        unk_surface=" \u2047 ",
        user_defined_symbols=["<|fim|>"],
        vocab_size=SPM_PIECES,
    )
    return model.getvalue()


def token_ids(names: list, byte_id, piece_id) -> list[int]:
    return [byte_id(name) if isinstance(name, int) else piece_id(name) for name in names]


def differing(values: dict, expected) -> dict:
    return {key: value for key, value in values.items() if value != expected}


def spm_cases(folder: Path) -> None:
    """What sentencepiece, the slow and the fast LlamaTokenizer of transformers 4 say."""
    from transformers import LlamaTokenizer, LlamaTokenizerFast

    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    slow = LlamaTokenizer.from_pretrained(folder)
    fast = LlamaTokenizerFast.from_pretrained(folder)
    bos = [1] if slow.add_bos_token else []

    def texts(ids: list[int]) -> dict:
        skipped = fast.decode(ids, skip_special_tokens=True)
        other = {
            "sentencepiece": sp.decode([token for token in ids if token < SPM_PIECES]),
            "slow": slow.decode(ids, skip_special_tokens=True, spaces_between_special_tokens=False),
            "with_special": fast.decode(ids),
        }
        return {"text": skipped} | differing(other, skipped)

    cases = []
    for text in TEXTS:
        ids = slow(text)["input_ids"]
        other = {"fast": fast(text)["input_ids"], "sentencepiece": bos + sp.encode(text)}
        cases.append({"text": text, "ids": ids} | differing(other, ids) | {"decoded": texts(ids)})
    added = slow.get_added_vocab()
    piece = {" ": "▁", "a": "a", " a": "▁a", "\n": "<0x0A>"}
    decodes = [
        {"ids": ids} | texts(ids)
        for names in DECODES
        if "<patch>" not in names or "<patch>" in added
        for ids in [
            token_ids(
                names,
                lambda byte: sp.piece_to_id(f"<0x{byte:02X}>"),
                lambda name: added.get(name) or sp.piece_to_id(piece.get(name, name)),
            )
        ]
    ]
    write_cases(folder / "cases.json", head(folder, slow, len(slow)), cases, decodes)


def head(folder: Path, tokenizer, size: int) -> dict:
    eos = GenerationConfig.from_pretrained(folder).eos_token_id
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_ids": eos if isinstance(eos, list) else [eos],
        "size": size,
    }


# --------------------------------------------------------------------------------------------------------------
# Byte-level BPE

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL_SPECIAL = ["<s>", "</s>", "<pad>", "<patch>"]


def train_byte_level() -> Tokenizer:
    """Llama 3's construction: a splitting expression, bytes, and a template that puts <s> first."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_TOKENS - len(BYTE_LEVEL_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(BYTE_LEVEL_SPECIAL)
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)]),
        ]
    )
    return tokenizer


def byte_level_cases(folder: Path, tokenizer) -> tuple[list[dict], list[dict]]:
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def texts(ids: list[int]) -> dict:
        skipped = tokenizer.decode(ids, skip_special_tokens=True)
        return {"text": skipped} | differing({"with_special": tokenizer.decode(ids)}, skipped)

    cases = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        cases.append({"text": text, "ids": ids, "decoded": texts(ids)})
    special = tokenizer.get_added_vocab()
    vocabulary = tokenizer.get_vocab()
    bytes_to_chars = byte_characters()
    decodes = [
        {"ids": ids} | texts(ids)
        for names in DECODES
        for ids in [
            token_ids(
                names,
                lambda byte: vocabulary[bytes_to_chars[byte]],
                lambda name: special[name] if name in special else vocabulary[alphabet.pre_tokenize_str(name)[0][0]],
            )
        ]
    ]
    return cases, decodes


def byte_characters() -> dict[int, str]:
    """The printable stand-in of every byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


# --------------------------------------------------------------------------------------------------------------


def make_all() -> None:
    model = train_sentencepiece()
    for name, files in SPM_VARIANTS.items():
        folder = empty_folder(name)
        (folder / "tokenizer.model").write_bytes(model)
        for file, value in files.items():
            write_json(folder / file, value)
        spm_cases(folder)
    folder = empty_folder("byte-level")
    built = train_byte_level()
    (folder / "tokenizer.json").write_text(built.to_str(), encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "</s>",
            "model_max_length": 4096,
            "pad_token": "<pad>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    eos = [built.token_to_id("</s>"), built.token_to_id("<patch>")]
    write_json(folder / "generation_config.json", {"bos_token_id": built.token_to_id("<s>"), "eos_token_id": eos})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    write_cases(
        folder / "cases.json",
        head(folder, tokenizer, len(tokenizer)),
        *byte_level_cases(folder, tokenizer),
    )


def add_transformers_5() -> None:
    """Adds to each case the ids of transformers 5 where they differ, as `transformers5`."""
    from transformers import AutoTokenizer

    for name in SPM_VARIANTS:
        path = HERE / name / "cases.json"
        tokenizer = AutoTokenizer.from_pretrained(HERE / name)
        content = json.loads(path.read_text(encoding="ascii"))
        cases, decodes = content.pop("cases"), content.pop("decodes")
        for case in cases:
            case.pop("transformers5", None)
            case |= differing({"transformers5": tokenizer(case["text"])["input_ids"]}, case["ids"])
        write_cases(path, content, cases, decodes)
    folder = HERE / "byte-level"
    content = json.loads((folder / "cases.json").read_text(encoding="ascii"))
    cases, decodes = byte_level_cases(folder, PreTrainedTokenizerFast.from_pretrained(folder))
    assert (cases, decodes) == (content["cases"], content["decodes"])


if __name__ == "__main__":
    make_all() if MAJOR == 4 else add_transformers_5()
