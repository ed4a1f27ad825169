#!/usr/bin/env python3
"""Compiles every kernel for the devices and prints its registers, shared memory and spills; fails on spills, serialised wgmma, missing instructions, and
exponentials that no product hides.

Usage: CUDA_HOME=$(kernels/install_nvcc.sh) kernels/check.py [--arch sm_80] [kernel.cu ...]
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

KERNELS = pathlib.Path(__file__).resolve().parent
ARCHITECTURES = {
    "sm_80": ["-gencode=arch=compute_80,code=sm_80"],
    "sm_90a": ["-gencode=arch=compute_90a,code=sm_90a"],
}
# What ptxas says when it gives up overlapping wgmma with anything else, or moving registers between warpgroups.
GIVEN_UP = re.compile(r"C75(1[0-9])|wgmma.*serializ|setmaxnreg.*ignored", re.IGNORECASE)
# What makes a kernel a Hopper kernel: warpgroup products and the tensor memory accelerator.
HOPPER_INSTRUCTIONS = ("HGMMA", "UTMALDG")
# A thread's exponentials for its share of the smallest tile: 64 rows by 64 keys over 128 threads.
EXPONENTIALS = 32


def tool(name):
    home = os.environ.get("CUDA_HOME")
    found = str(pathlib.Path(home, "bin", name)) if home else shutil.which(name)
    if not found or not pathlib.Path(found).exists():
        sys.exit(f"{name} not found: set CUDA_HOME (kernels/install_nvcc.sh installs it)")
    return found


def exposed_exponentials(code):
    """Faults of functions whose exponentials do not run under a product: after the wait that leaves one under way (gsb0, 0x1), before the wait for it (0x0)."""
    faults = []
    for function in code.split("Function : ")[1:]:
        name, under_way, hidden = function.split(None, 1)[0], None, []
        for line in function.splitlines():
            if wait := re.search(r"DEPBAR\.LE gsb0, 0x([01])\b", line):
                if wait[1] == "0" and under_way is not None:
                    hidden.append(under_way)
                under_way = 0 if wait[1] == "1" else None
            elif under_way is not None and "MUFU.EX2" in line:
                under_way += 1
        if not hidden or min(hidden) < EXPONENTIALS:
            faults.append(f"{name}: exponentials under each product: {hidden}, expected {EXPONENTIALS} or more")
    return faults


def check_rule():
    """That the rule above can fail, on listings as cuobjdump writes them."""
    product, started, finished = "HGMMA.64x128x16.F32.BF16 R24, R4, gdesc[UR8] ;", "WARPGROUP.DEPBAR.LE gsb0, 0x1 ;", "WARPGROUP.DEPBAR.LE gsb0, 0x0 ;"
    exponentials = ["MUFU.EX2 R5, R5 ;"] * EXPONENTIALS
    listing = lambda *parts: "\n".join(["\t\tFunction : kernel", product, finished, *exponentials, product, *sum(parts, [])])
    hidden = [started, *exponentials, finished]
    assert not exposed_exponentials(listing(hidden, [product], hidden))
    assert exposed_exponentials(listing(hidden, [product, started, finished, *exponentials])) == [
        f"kernel: exponentials under each product: [{EXPONENTIALS}, 0], expected {EXPONENTIALS} or more"
    ]
    assert exposed_exponentials(listing([finished, *exponentials]))


def demand(source, arch):
    """Compiles one file and returns rows for the table and a list of faults."""
    with tempfile.TemporaryDirectory() as folder:
        image = str(pathlib.Path(folder, "kernel.cubin"))
        command = [tool("nvcc"), "-std=c++20", "-I", str(KERNELS), *ARCHITECTURES[arch], "-cubin", "-Xptxas", "-v,--warn-on-spills", "-o", image, str(source)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            return [], [f"{source.name} for {arch}: {result.stderr.strip()}"]
        rows, faults = [], []
        for block in result.stderr.split("Compiling entry function ")[1:]:
            name = block.split("'")[1]
            registers = int(re.search(r"Used (\d+) registers", block)[1])
            shared = re.search(r"(\d+) bytes smem", block)
            spills = sum(map(int, re.findall(r"(\d+) bytes spill", block)))
            rows.append((name, arch, registers, int(shared[1]) if shared else 0, spills))
            if spills:
                faults.append(f"{name} for {arch}: spills {spills} bytes")
        faults += [f"{source.name}: {line.strip()}" for line in result.stderr.splitlines() if GIVEN_UP.search(line)]
        if "sm90" in source.name:
            code = subprocess.run([tool("cuobjdump"), "-sass", image], capture_output=True, text=True, check=True,
                                  env={**os.environ, "PATH": f"{pathlib.Path(tool('nvdisasm')).parent}:{os.environ['PATH']}"}).stdout
            faults += [f"{source.name}: no {name} in its code" for name in HOPPER_INSTRUCTIONS if name not in code]
            faults += [f"{source.name}: {fault}" for fault in exposed_exponentials(code)]
        return rows, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    parser.add_argument("kernels", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    check_rule()
    print(f"{'kernel':40} {'arch':7} {'registers':>9} {'static shared':>13} {'spilled':>7}")
    jobs = [
        (source, arch)
        for source in arguments.kernels or sorted(KERNELS.glob("*.cu"))
        for arch in arguments.arch or ARCHITECTURES
        if "sm90" not in source.name or arch == "sm_90a"
    ]
    faults = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
        for rows, found in workers.map(lambda job: demand(*job), jobs):
            for name, arch, registers, shared, spills in sorted(rows):
                print(f"{name:40} {arch:7} {registers:9} {shared:13} {spills:7}", flush=True)
            faults += found
    for fault in faults:
        print(f"FAILED {fault}", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
