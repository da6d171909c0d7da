"""Why a network does not learn: its data, its activations and gradients, its curves."""
