"""Altered and random input for every reader: how it is made, and what is asked of the reader."""
