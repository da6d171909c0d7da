"""How a network is run: passes, the training step, inference, the parameters' arena."""
