#!/usr/bin/env bash
# Test and measure nnkit on a CUDA device, from a bare checkout: bench/gpu.sh [CALL or SECTION ...].
#
# On a machine with a GPU that is lent for half an hour, four calls of 8, 7, 5 and 4 minutes do everything. OUT is
# the folder that comes back from there, NNKIT_BENCH_DATA one that holds mnist/ and california_housing.csv:
#
#     export NNKIT_BENCH_OUT=$OUT NNKIT_BENCH_DATA=data
#     bench/gpu.sh a --cache $OUT/cache.tar.gz    # smoke, warm, tests, floors, kernels
#     bench/gpu.sh b                              # step, agreement, small, floor
#     bench/gpu.sh c                              # mixed
#     bench/gpu.sh d                              # mnist, loading
#
# Compiled kernels stay in build/gpu/cache for the next call; on a fresh machine, `--cache cache.tar.gz` unpacks
# what an earlier call packed. Missing packages are installed from wheels/ (NNKIT_WHEELS names another folder); a
# message says which are missing, and the command that downloads them. Afterwards, where the results came back to:
#
#     python bench/gpu merge a/gpu-h200.json b/gpu-h200.json ... && python bench/report.py
#
# Without a device, a dry run whose figures mean nothing: bench/gpu.sh --device cpu --quick --no-peers
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
site="$PWD/build/gpu/site"
# No package is imported from the current folder, where `nnkit.kernels` lies beside `nnkit`.
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
export NNKIT_CACHE="${NNKIT_CACHE:-$PWD/build/gpu/cache}"
export CUPY_CACHE_DIR="${CUPY_CACHE_DIR:-$NNKIT_CACHE/cupy}"
"$python" bench/bare.py "$site" --wheels "${NNKIT_WHEELS:-wheels}" "$@"
exec "$python" bench/gpu run "$@"
