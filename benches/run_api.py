#!/usr/bin/env python3
"""`swebench-cli run-api` against a service on loopback: time beside the ideal, CPU and memory.

    cargo build --release && python benches/run_api.py
    python benches/run_api.py --instances 100000 --delay 0      # memory; needs three times the dataset on the disk

The service answers after `--delay` seconds with a patch and counts what it is asked. Needs nothing but Python.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANSWER = json.dumps({
    "model": "loopback",
    "choices": [{"message": {"content": "<patch>\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n</patch>"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 15000, "completion_tokens": 40},
}).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


class Service(asyncio.Protocol):
    """HTTP/1.1 with connections that stay open: a request is a head with content-length and its body."""

    def __init__(self, delay):
        self.delay, self.buffer, self.missing = delay, bytearray(), None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.missing is None:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end]).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            self.missing = length - (len(self.buffer) - end - 4)
            self.buffer.clear()
        else:
            self.missing -= len(data)
        if self.missing <= 0:
            self.missing = None
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, HEAD + ANSWER)


def serve(delay, port):
    async def main():
        server = await asyncio.get_running_loop().create_server(lambda: Service(delay), "127.0.0.1", 0, backlog=512)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


def write_dataset(path, instances, size):
    code = Path(ROOT / "tests/data/make_datasets.py").read_text()
    code *= size // len(code) + 1
    with open(path, "w") as file:
        for number in range(instances):
            head = f"You will be provided with a partial code base.\nissue {number}\n"
            text = head + code[: size - len(head)]
            file.write(json.dumps({"instance_id": f"owner__repository-{number:06}", "text": text}) + "\n")


def run(args, dataset, url, out, concurrency):
    """Seconds, CPU seconds and peak bytes of one run, and what it says of itself."""
    command = [args.cli, "-q", "run-api", "--model-name-or-path", "loopback", "--base-url", url, "--dataset-name-or-path",
               dataset, "--output-dir", out, *(["--concurrency", str(concurrency)] if concurrency else [])]
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    begun = time.monotonic()
    pid = os.posix_spawn(command[0], command, environment,
                         file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - begun
    assert status == 0, f"{command} ended with {status}"
    (file,) = Path(out).glob("*.jsonl")
    lines = sum(1 for _ in open(file, "rb"))
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024,
            "predictions": lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", default=str(ROOT / "target/release/swebench-cli"))
    parser.add_argument("--instances", type=int, default=2294)
    parser.add_argument("--size", type=int, default=60_000, help="bytes of a prompt")
    parser.add_argument("--delay", type=float, default=0.2, help="seconds before an answer")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight; 0 lets the program find out")
    parser.add_argument("--alone", type=int, default=25, help="instances of the run with one request at a time; 0 for none")
    parser.add_argument("--dir", default=None, help="where datasets and predictions go for the time of the run")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()

    port = multiprocessing.Value("i", 0)
    service = multiprocessing.Process(target=serve, args=(args.delay, port), daemon=True)
    service.start()
    while port.value == 0:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{port.value}/v1"
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        dataset = f"{directory}/dataset.jsonl"
        write_dataset(dataset, args.instances, args.size)
        together = run(args, dataset, url, f"{directory}/together", args.concurrency)
        assert together["predictions"] == args.instances, together
        result = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), **vars(args), "run": together}
        del result["cli"], result["dir"], result["json"]
        rate = args.instances / together["seconds"]
        print(f"{args.instances} instances of {args.size} bytes, answers after {args.delay} s, {args.concurrency or 'adaptive'} in flight")
        print(f"  {together['seconds']:.2f} s, {rate:.0f} requests/s")
        if args.delay and args.concurrency:
            ideal = math.ceil(args.instances / args.concurrency) * args.delay
            result["ideal_seconds"], result["times_ideal"] = ideal, together["seconds"] / ideal
            print(f"  {together['seconds'] / ideal:.3f} x the ideal time of {ideal:.2f} s")
        cpu = together["cpu_seconds"] / args.instances
        result["cpu_ms_a_request"] = cpu * 1e3
        print(f"  {cpu * 1e3:.2f} ms of CPU a request, reading the dataset and writing predictions included")
        print(f"  {together['peak_bytes'] / 1e6:.0f} MB at the peak")
        if args.alone:
            few = f"{directory}/few.jsonl"
            write_dataset(few, args.alone, args.size)
            alone = run(args, few, url, f"{directory}/alone", 1)
            ratio = rate / (args.alone / alone["seconds"])
            result["one_at_a_time"], result["times_faster"] = alone, ratio
            print(f"  {ratio:.1f} x as fast as one request at a time ({alone['seconds']:.2f} s for {args.alone})")
    service.terminate()
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
