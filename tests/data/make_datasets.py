"""Builds the datasets of this directory from SWE-bench Lite instances and their prompts.

    python make_datasets.py PROMPTS.jsonl.gz INSTANCES.jsonl [--out DIR]

PROMPTS holds one object a line with `instance_id`, `readmes` and `file_contents` ({path: content} at
the base commit) and `prompts` ({style: text}); INSTANCES holds SWE-bench Lite rows. Only instances of
MIT-licensed repositories are kept. Every gold patch is checked with `git apply --check` on a tree
made of the instance's files.
"""

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, Value

MIT_REPOS = {"marshmallow-code/marshmallow", "pydicom/pydicom", "sqlfluff/sqlfluff"}
STYLE = "style-2-edits-only"
NAME = "swe-bench-lite-mit"
COLUMNS = [
    "instance_id",
    "text",
    "repo",
    "base_commit",
    "problem_statement",
    "hints_text",
    "created_at",
    "patch",
    "test_patch",
    "version",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "environment_setup_commit",
]


def read_jsonl(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def check_applies(instance_id, files, patch):
    """Fails unless `git apply --check` accepts `patch` on a tree of `files`."""
    with tempfile.TemporaryDirectory() as tree:
        for path, content in files.items():
            target = Path(tree, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode())
        git = ["git", "-c", "core.autocrlf=false", "-C", tree]
        subprocess.run([*git, "init", "-q"], check=True)
        result = subprocess.run([*git, "apply", "--check"], input=patch.encode(), capture_output=True)
    if result.returncode != 0:
        raise SystemExit(f"{instance_id}: {result.stderr.decode()}")


def row_of(instance, prompt):
    """A row with the columns and the text that the reference's `create_text_dataset` makes."""
    row = {column: instance.get(column, "") for column in COLUMNS}
    for column in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        if not isinstance(row[column], str):
            row[column] = json.dumps(row[column])
    row["text"] = prompt.strip() + "\n\n"
    row["patch"] = "\n".join(["<patch>", instance["patch"], "</patch>"])
    return row


def write_jsonl(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    else:
        path.write_bytes(text.encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("instances", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()

    prompts = {row["instance_id"]: row for row in read_jsonl(args.prompts)}
    instances = [
        row
        for row in read_jsonl(args.instances)
        if row["repo"] in MIT_REPOS and row["instance_id"] in prompts
    ]
    rows, trees, patches, goldens = [], [], [], []
    for instance in instances:
        instance_id = instance["instance_id"]
        files = prompts[instance_id]["file_contents"]
        check_applies(instance_id, files, instance["patch"])
        rows.append(row_of(instance, prompts[instance_id]["prompts"][STYLE]))
        trees.append({"instance_id": instance_id, "files": files})
        patches.append({"instance_id": instance_id, "patch": instance["patch"]})
        hashes = {
            style: hashlib.sha256(text.encode()).hexdigest()
            for style, text in prompts[instance_id]["prompts"].items()
        }
        readmes = prompts[instance_id]["readmes"]
        goldens.append({"instance_id": instance_id, "readmes": readmes, "sha256": hashes})

    features = Features({column: Value("string") for column in COLUMNS})
    dataset = Dataset.from_list(rows, features=features)
    shutil.rmtree(args.out / NAME, ignore_errors=True)
    DatasetDict({"test": dataset}).save_to_disk(str(args.out / NAME))
    pq.write_table(dataset.data.table, args.out / f"{NAME}.parquet", compression="zstd")
    write_jsonl(args.out / "trees.jsonl.gz", trees)
    write_jsonl(args.out / "gold-patches.jsonl", patches)
    write_jsonl(args.out / "prompts.jsonl.gz", goldens)
    print(f"{len(rows)} instances")


if __name__ == "__main__":
    main()
