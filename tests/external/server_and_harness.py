"""run-api against a real server, read by the real harness.

llama.cpp's server, which speaks OpenAI's protocol, answers the demo dataset with the demo model; the SWE-bench harness reads dataset
and predictions. The patches have to be the gold patches: prompt, template, tokens and answer all came through.

    pip install -r tests/external/requirements.txt
    cargo build --release
    python tests/external/server_and_harness.py target/release/swebench-cli
"""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import demo_gguf

DATA = demo_gguf.DEMO.parent
START_SECONDS = 120


@contextlib.contextmanager
def server(directory):
    """The address of a server on loopback, which ends with the block."""
    model = directory / "demo.gguf"
    demo_gguf.write(model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", "8192", "--flash_attn", "true"]
    log = directory / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(START_SECONDS * 10):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/models").close()
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            raise AssertionError(f"the server did not answer in {START_SECONDS} s:\n{log.read_text()}")
        yield url
    finally:
        process.terminate()
        process.wait()


def predict(cli, url, output, *flags):
    """Runs run-api and returns the path of the predictions."""
    command = [cli, "run-api", "--model-name-or-path", "demo", "--provider", "openai", "--base-url", url]
    # This server's own defaults sample, and punish repetition, which diffs are full of.
    command += ["--model-args", "temperature=0,repeat_penalty=1.0"]
    command += ["--dataset-name-or-path", str(DATA / "swe-bench-lite-mit"), "--output-dir", str(output)]
    keyless = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    done = subprocess.run(command + list(flags), env=keyless, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = output.glob("*.jsonl")
    return path


def check(path, counted):
    """Holds the predictions to the gold patches, through the harness's own readers; `counted` when the server counts tokens."""
    from swebench.harness.utils import get_predictions_from_file, load_swebench_dataset

    instances = load_swebench_dataset(str(DATA / "swe-bench-lite-mit"), "test")
    predictions = get_predictions_from_file(str(path), str(DATA / "swe-bench-lite-mit"), "test")
    found = {prediction["instance_id"]: prediction for prediction in predictions}
    assert len(predictions) == len(found) == len(instances), (len(predictions), len(found), len(instances))
    gold = dict(
        (row["instance_id"], row["patch"]) for row in map(json.loads, (DATA / "gold-patches.jsonl").open())
    )
    for name, prediction in found.items():
        assert prediction["model_name_or_path"] == "demo", prediction["model_name_or_path"]
        assert prediction["finish_reason"] == "stop", (name, prediction["finish_reason"])
        tokens = prediction.get("usage", {}).get("completion_tokens", 0)
        assert (tokens > 0) == counted, (name, tokens)
        assert prediction["model_patch"].strip() == gold[name].strip(), f"{name}: not the gold patch"
    return len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cli", help="path of swebench-cli")
    cli = str(pathlib.Path(parser.parse_args().cli).resolve())
    with tempfile.TemporaryDirectory() as directory, server(pathlib.Path(directory)) as url:
        # In streams this server does not count.
        for name, flags, counted in [("plain", [], True), ("stream", ["--stream"], False)]:
            output = pathlib.Path(directory) / name
            count = check(predict(cli, url, output, *flags), counted)
            print(f"{name}: {count} gold patches through a real server, read by the harness")


if __name__ == "__main__":
    main()
