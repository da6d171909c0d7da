"""The CUDA kernels that sort a batch's tokens by id and find the runs of equal ids.

A stable radix sort by digits of five bits, the least significant first. Every thread owns consecutive items,
in the order of blocks and threads, so that equal digits keep their order and nothing depends on which block
runs first. With several blocks, each phase that all of them must have finished is a launch of its own; few
tokens are sorted by `number`, which does all phases in one block.

Reference: Satish, Harris and Garland 2009, "Designing efficient sorting algorithms for manycore GPUs".
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from nnkit.kernels.common_parts import MAX, SHUFFLED, WEIGHTED
from nnkit.kernels.cuda_geometry import DIGIT_BITS, DIGITS
from nnkit.kernels.cuda_parts import ITEMS, LEVELS, MANY, ROW_LEVELS, THREADS, is_last, less
from nnkit.kernels.layout import BATCH

LAST_DIGIT = DIGITS - 1
PITCH = DIGITS + 1  # odd, so that threads that walk along rows of shared memory use different banks


# ---------------------------------------------------------------------------------------------------------
# Parts.
# ---------------------------------------------------------------------------------------------------------


def own_items(count):
    """Return the range of this thread's consecutive items, out of `count` that all blocks share."""
    share = ITEMS if MANY else (count + THREADS - 1) // THREADS
    begin = less((cuda.blockIdx.x * THREADS + cuda.threadIdx.x) * share, count)
    end = less(begin + share, count)
    return begin, end


def block_scan(x):
    """Return the sum of `x` over the block's threads before this one, and over all of them."""
    thread = cuda.threadIdx.x
    sums = cuda.shared.array(THREADS, np.int32)
    cuda.syncthreads()  # the sums of the previous scan have been read
    sums[thread] = x
    cuda.syncthreads()
    for level in range(LEVELS):
        before = np.int32(0)
        if thread >= 1 << level:
            before = sums[thread - (1 << level)]
        cuda.syncthreads()
        sums[thread] += before
        cuda.syncthreads()
    return sums[thread] - x, sums[THREADS - 1]


def scan(counts, size):
    """Replace each count by the sum of those before it; by one block."""
    share = (size + THREADS - 1) // THREADS
    begin = less(cuda.threadIdx.x * share, size)
    end = less(begin + share, size)
    own = 0
    for k in range(begin, end):
        own += counts[k]
    before, _ = block_scan(own)
    for k in range(begin, end):
        count = counts[k]
        counts[k] = before
        before += count


def scan_blocks(own, block_counts, tickets):
    """Sum the threads' counts over each block, then replace each block's sum by that of the blocks before."""
    _, total = block_scan(own)
    if cuda.threadIdx.x == 0:
        block_counts[cuda.blockIdx.x] = total
    if is_last(tickets, 0, cuda.gridDim.x):
        scan(block_counts, cuda.gridDim.x)


def token_sum(starts, order, first, begin, end):
    """Return the number of tokens in the rows ``begin .. end - 1`` of the batch."""
    tokens = 0
    for i in range(begin, end):
        row = order[first + i] if SHUFFLED else first + i
        tokens += starts[row + 1] - starts[row]
    return tokens


def owner_of(token, batch_starts, rows):
    """Return the row of the batch that holds a token: the last that begins at or before it."""
    owner = 0
    for level in range(ROW_LEVELS):
        later = owner + (1 << (ROW_LEVELS - 1 - level))
        if later < rows and batch_starts[later] <= token:
            owner = later
    return owner


def digit_places(keys, sort_pass, begin, end):
    """Return the places of the block's items in the order of their digits, and the number of items.

    The first item of a thread with a digit gets place ``places[k // DIGITS, k % DIGITS]``, where k is
    ``digit * THREADS + thread``.
    """
    thread = cuda.threadIdx.x
    places = cuda.shared.array((THREADS, PITCH), np.int32)
    cuda.syncthreads()  # the places of the previous pass have been read
    for k in range(DIGITS):
        places[thread, k] = 0
    cuda.syncthreads()
    for place in range(begin, end):
        digit = (keys[sort_pass & 1, place] >> (sort_pass * DIGIT_BITS)) & LAST_DIGIT
        k = digit * THREADS + thread
        places[k >> DIGIT_BITS, k & LAST_DIGIT] += 1
    cuda.syncthreads()
    own = 0
    for k in range(DIGITS):
        own += places[thread, k]
    before, total = block_scan(own)
    for k in range(DIGITS):
        count = places[thread, k]
        places[thread, k] = before
        before += count
    cuda.syncthreads()
    return places, total


def starts_run(keys, passes, place):
    """Return whether the sorted token at a place is the first with its id."""
    return place == 0 or keys[passes & 1, place - 1] != keys[passes & 1, place]


def run_sum(keys, passes, begin, end):
    """Return the number of runs that begin at the places ``begin .. end - 1``."""
    found = 0
    for place in range(begin, end):
        if starts_run(keys, passes, place):
            found += 1
    return found


# ---------------------------------------------------------------------------------------------------------
# The phases, in order: each is a kernel, and all but the counts are parts of `number`.
# ---------------------------------------------------------------------------------------------------------


def count_tokens(starts, order, counters, batch_size, totals, row_counts, tickets):
    """Count the tokens before those of each block's rows."""
    first = counters[BATCH] * batch_size
    begin, end = own_items(less(totals.shape[0], starts.shape[0] - 1 - first))
    scan_blocks(token_sum(starts, order, first, begin, end), row_counts, tickets)


def start_rows(starts, order, counters, batch_size, totals, row_counts, batch_starts, token_count):
    """Fill `batch_starts` with the first token of each row of the batch, and `token_count`."""
    first = counters[BATCH] * batch_size
    begin, end = own_items(less(totals.shape[0], starts.shape[0] - 1 - first))
    before, _ = block_scan(token_sum(starts, order, first, begin, end))
    if MANY:
        before += row_counts[cuda.blockIdx.x]
    for i in range(begin, end):
        row = order[first + i] if SHUFFLED else first + i
        batch_starts[i] = before
        before += starts[row + 1] - starts[row]
    if cuda.threadIdx.x == THREADS - 1 and cuda.blockIdx.x == cuda.gridDim.x - 1:
        token_count[0] = before


def list_tokens(
    ids,
    starts,
    order,
    counters,
    batch_size,
    totals,
    passes,
    batch_starts,
    token_count,
    token_owners,
    keys,
    tokens,
    digit_counts,
    tickets,
):
    """List the batch's tokens with their rows of the batch and their ids, which are the keys of the sort."""
    first = counters[BATCH] * batch_size
    rows = less(totals.shape[0], starts.shape[0] - 1 - first)
    begin, end = own_items(token_count[0])
    for token in range(begin, end):
        i = owner_of(token, batch_starts, rows)
        row = order[first + i] if SHUFFLED else first + i
        token_owners[token] = i
        keys[0, token] = ids[starts[row] + token - batch_starts[i]]
        tokens[0, token] = token
    if MANY and passes > 0:
        count_digits(keys, 0, token_count, digit_counts, tickets)


def count_digits(keys, sort_pass, token_count, digit_counts, tickets):
    """Count the tokens that come before those of each digit and block."""
    begin, end = own_items(token_count[0])
    places, total = digit_places(keys, sort_pass, begin, end)
    for digit in range(cuda.threadIdx.x, DIGITS, THREADS):
        k = digit * THREADS
        count = total - places[k >> DIGIT_BITS, k & LAST_DIGIT]
        if digit < LAST_DIGIT:
            k += THREADS
            count -= total - places[k >> DIGIT_BITS, k & LAST_DIGIT]
        digit_counts[digit * cuda.gridDim.x + cuda.blockIdx.x] = count
    if is_last(tickets, 0, cuda.gridDim.x):
        scan(digit_counts, DIGITS * cuda.gridDim.x)


def sort_digit(keys, tokens, sort_pass, token_count, digit_counts):
    """Sort tokens and keys by one digit, from one half of their arrays into the other."""
    thread = cuda.threadIdx.x
    begin, end = own_items(token_count[0])
    places, _ = digit_places(keys, sort_pass, begin, end)
    if MANY:
        offsets = cuda.shared.array(DIGITS, np.int32)
        for digit in range(thread, DIGITS, THREADS):
            k = digit * THREADS
            before = digit_counts[digit * cuda.gridDim.x + cuda.blockIdx.x]
            offsets[digit] = before - places[k >> DIGIT_BITS, k & LAST_DIGIT]
        cuda.syncthreads()
    source = sort_pass & 1
    for place in range(begin, end):
        key = keys[source, place]
        digit = (key >> (sort_pass * DIGIT_BITS)) & LAST_DIGIT
        k = digit * THREADS + thread
        target = places[k >> DIGIT_BITS, k & LAST_DIGIT]
        places[k >> DIGIT_BITS, k & LAST_DIGIT] = target + 1
        if MANY:
            target += offsets[digit]
        keys[1 - source, target] = key
        tokens[1 - source, target] = tokens[source, place]


def count_runs(keys, passes, token_count, run_counts, tickets):
    """Count the runs that begin before each block's tokens."""
    begin, end = own_items(token_count[0])
    scan_blocks(run_sum(keys, passes, begin, end), run_counts, tickets)


def find_runs(
    keys,
    tokens,
    passes,
    batch_starts,
    token_count,
    token_owners,
    run_counts,
    owners,
    offsets,
    runs,
    run_starts,
    rows_seen,
    seen,
):
    """Number the runs; fill in each token's run, row of the batch (owner) and place in its bag (offset).

    `rows_seen` gets each run's id, and `run_starts` its first place and, last, the number of tokens.
    """
    begin, end = own_items(token_count[0])
    run, _ = block_scan(run_sum(keys, passes, begin, end))
    if MANY:
        run += run_counts[cuda.blockIdx.x]
    for place in range(begin, end):
        if starts_run(keys, passes, place):
            rows_seen[run] = keys[passes & 1, place]
            run_starts[run] = place
            run += 1
        runs[place] = run - 1
        token = tokens[passes & 1, place]
        i = token_owners[token]
        owners[place] = i
        if MAX or WEIGHTED:
            offsets[place] = token - batch_starts[i]
    if cuda.threadIdx.x == THREADS - 1 and cuda.blockIdx.x == cuda.gridDim.x - 1:
        seen[0] = run
        run_starts[run] = token_count[0]


def number(
    ids,
    starts,
    order,
    counters,
    batch_size,
    totals,
    passes,
    row_counts,
    batch_starts,
    token_count,
    token_owners,
    keys,
    tokens,
    digit_counts,
    run_counts,
    tickets,
    owners,
    offsets,
    runs,
    run_starts,
    rows_seen,
    seen,
):
    """Sort the batch's tokens by id and list the rows of the table that they name; by one block."""
    start_rows(starts, order, counters, batch_size, totals, row_counts, batch_starts, token_count)
    cuda.syncthreads()
    list_tokens(
        ids,
        starts,
        order,
        counters,
        batch_size,
        totals,
        passes,
        batch_starts,
        token_count,
        token_owners,
        keys,
        tokens,
        digit_counts,
        tickets,
    )
    cuda.syncthreads()
    for sort_pass in range(passes):
        sort_digit(keys, tokens, sort_pass, token_count, digit_counts)
        cuda.syncthreads()
    find_runs(
        keys,
        tokens,
        passes,
        batch_starts,
        token_count,
        token_owners,
        run_counts,
        owners,
        offsets,
        runs,
        run_starts,
        rows_seen,
        seen,
    )
