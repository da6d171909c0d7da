"""The faults that `bench/faults.py` injects into trainings, a file for each kind."""
