"""What `bench/gpu.sh` runs on a CUDA device: sections of parts, each part able to fail alone."""
