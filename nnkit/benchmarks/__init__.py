"""The measuring code: what `bench/` runs, usable on any machine."""
