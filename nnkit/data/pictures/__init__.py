"""Pictures: found, decoded, cached and encoded."""
