"""Models written in the formats of others: a file for each format."""
