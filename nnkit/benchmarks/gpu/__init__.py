"""The benchmarks of `bench/gpu.sh`: sections of parts, each part able to fail alone."""
