"""What a network is: layers, activations, losses, optimizers, schedules, metrics."""
