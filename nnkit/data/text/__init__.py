"""Texts: read, split into tokens, and encoded."""
