"""How rows reach a device: features, batches, streaming, and the order of an epoch."""
