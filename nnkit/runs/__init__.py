"""A training as a file describes it: the configuration, the run and its folder."""
