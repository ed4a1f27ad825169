"""Cuts the documents and hits of MIT-licensed repositories out of recorded BM25 searches.

    python make.py RECORDED INSTANCES.jsonl

RECORDED holds `hits.jsonl`, one `{instance_id, hits: [{docid, score}]}` a line as Pyserini's Lucene gave them, and
`INSTANCE.documents.jsonl.gz`, one `{id, contents}` a line, where `contents` is the path, a newline, and the file.
INSTANCES.jsonl holds the rows of SWE-bench Lite with their `problem_statement`. `documentation.jsonl.gz` is made here from the same files, and from `nested.py`, with Python's own `ast`.
"""

import ast
import gzip
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
INSTANCES = [
    "marshmallow-code__marshmallow-1343",
    "sqlfluff__sqlfluff-1517",
    "sqlfluff__sqlfluff-2419",
]
# Enough to compare docstrings on.
DOCUMENTED = ["marshmallow-code__marshmallow-1343", "sqlfluff__sqlfluff-2419"]


def documentation(content):
    """The module's docstring, then name and docstring of all that has one, in the order of `ast.walk`."""
    tree = ast.parse(content)
    parts = [ast.get_docstring(tree) or ""]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                parts.append(f"\n\n{node.name}\n{docstring}")
    return "".join(parts)


def write(name, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode()
    (HERE / name).write_bytes(gzip.compress(data, 9, mtime=0) if name.endswith(".gz") else data)


def main():
    recorded = Path(sys.argv[1])
    hits = map(json.loads, (recorded / "hits.jsonl").read_text().splitlines())
    hits = {row["instance_id"]: row["hits"] for row in hits}
    issues = map(json.loads, Path(sys.argv[2]).read_text().splitlines())
    issues = {row["instance_id"]: row["problem_statement"] for row in issues}
    documents, documented = [], [["", "nested.py", documentation((HERE / "nested.py").read_text())]]
    for instance in INSTANCES:
        with gzip.open(recorded / f"{instance}.documents.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        files = {row["id"]: row["contents"].removeprefix(row["id"] + "\n") for row in rows}
        documents.append({"instance_id": instance, "files": files})
        if instance in DOCUMENTED:
            documented += [[instance, path, documentation(content)] for path, content in files.items()]
    rows = [{"instance_id": name, "problem_statement": issues[name], "hits": hits[name]} for name in INSTANCES]
    write("hits.jsonl", rows)
    write("documents.jsonl.gz", documents)
    names = ("instance_id", "path", "documentation")
    write("documentation.jsonl.gz", [dict(zip(names, row)) for row in documented])


if __name__ == "__main__":
    main()
