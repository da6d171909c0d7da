"""The layout of a step's numbers in device memory: indices into `counters`, `scalars` and the segments."""

from __future__ import annotations

# counters: int64
EPOCH = 0  # from 0
BATCH = 1  # the batch's index in its epoch, which chooses the rows, the draws and the learning rate
STEP = 2  # updates done, for the optimizer; a skipped update is not counted
COUNTERS = 3

# scalars: float64
WEIGHT_SUM = 0  # Σw of the current batch
LOSS_SUM = 1  # Σ w·loss of the epoch so far
LOSS_WEIGHT = 2  # Σw of the epoch so far
PENALTY_SUM = 3  # Σ over the epoch's batches of penalty · Σw; of the penalty alone where it is divided by Σw
SQUARED_NORM = 4  # of the current batch's gradient, before its correction by the nominal batch size / Σw
BATCH_SHARE = 5  # the current batch's factor, where batches count by their rows
SCALARS = 6

# scaling: float64, where the loss is scaled
LOSS_SCALE = 0
CLEAN_STEPS = 1  # without an overflow since the scale changed
SKIPPED_STEPS = 2  # updates skipped for an overflow since the training began
SCALING = 3

# a segment's row: int64
SEGMENT_START = 0
SEGMENT_STOP = 1
SEGMENT_DECAYS = 2
SEGMENT_COLUMNS = 3

# the place of a segment's copy in 16 bits: int64
COPY_START = 0
COPY_WIDTH = 1  # elements of a row
COPY_PITCH = 2  # from one row of the copy to the next
COPY_COLUMNS = 3

# LINK: the function from outputs to predictions; an ensemble predicts the mean of its members' predictions
IDENTITY = 0
SIGMOID = 1
SOFTMAX = 2
EXP = 3

# The last counter word of a draw is its purpose; dropout's is the epoch, which stays far below these.
SHUFFLE = 0x4F524445  # "ORDE"
SHUFFLE_WITHIN = 0x57494E44  # "WIND": among the rows of some blocks, where an order is in blocks
WEIGHTS = 0x57454947  # "WEIG"
# A picture's draws have these in place of a layer, and the epoch as the last word, as dropout has.
AUGMENT_PLACE = 0x41554750  # "AUGP": how far down and right, whether mirrored, whether erased
AUGMENT_ERASE = 0x41554745  # "AUGE": the rectangle's height, width, top and left
