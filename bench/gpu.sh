#!/usr/bin/env bash
# Test and measure nnkit on a CUDA device, in one command: bench/gpu.sh [SECTION ...] [--minutes 8]
# Without a device, a dry run whose figures mean nothing: bench/gpu.sh --device cpu --quick --no-peers
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" bench/gpu.py run "$@"
