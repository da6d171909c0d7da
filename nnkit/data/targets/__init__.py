"""Targets: read, guessed, and encoded as classes or numbers."""
