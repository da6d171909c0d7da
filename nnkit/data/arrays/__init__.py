"""Arrays: read from files, checked, and encoded."""
