"""How rows reach a device: features, batches, the ring of slots, the order of an epoch."""
