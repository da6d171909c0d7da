"""The measuring code: what `nnkit bench` and `bench/` run, on any machine."""
