"""Tables of named columns: read, described by a schema, and encoded for a network."""
