#!/usr/bin/env bash
# Installs nvcc from PyPI into the virtual environment DIR (default target/nvcc); needs no GPU. Prints the folder to use as CUDA_HOME.
# All five packages are pinned: with nvcc alone, pip takes newer parts whose PTX this ptxas refuses.
set -euo pipefail
dir=${1:-target/nvcc}
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check \
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 \
  nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.5.37
echo "$(cd "$dir" && pwd)"/lib/python3*/site-packages/nvidia/cu13
