"""The CUDA kernels that sort a batch's tokens by id and find the runs of equal ids.

A stable radix sort by digits of five bits, the least significant first. Every thread owns consecutive items,
in the order of blocks and threads, so that equal digits keep their order and nothing depends on which block
runs first. With several blocks, each phase that all of them must have finished is a launch of its own; few
tokens are sorted by `unique_rows`, which does all phases in one block.

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


def batch_rows(given):
    """Return the batch's first row in the epoch, and how many rows it has."""
    first = given.counters[BATCH] * given.batch_size
    return first, less(given.totals.shape[0], given.starts.shape[0] - 1 - first)


def bag_start(given, i):
    """Return where the tokens of the epoch's i-th row begin, and the number of them."""
    row = given.order[i] if SHUFFLED else i
    start = given.starts[row]
    return start, given.starts[row + 1] - start


def token_sum(given, begin, end):
    """Return the number of tokens in the epoch's rows ``begin .. end - 1``."""
    tokens = 0
    for i in range(begin, end):
        _, length = bag_start(given, i)
        tokens += length
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
# The phases, in order: each is a kernel, and all but the counts are parts of `unique_rows`.
# ---------------------------------------------------------------------------------------------------------


def count_tokens(given):
    """Count the tokens before those of each block's rows."""
    first, rows = batch_rows(given)
    begin, end = own_items(rows)
    scan_blocks(token_sum(given, first + begin, first + end), given.row_counts, given.tickets)


def start_rows(given):
    """Fill `batch_starts` with the first token of each row of the batch, and `token_count`."""
    first, rows = batch_rows(given)
    begin, end = own_items(rows)
    before, _ = block_scan(token_sum(given, first + begin, first + end))
    if MANY:
        before += given.row_counts[cuda.blockIdx.x]
    for i in range(begin, end):
        given.batch_starts[i] = before
        _, length = bag_start(given, first + i)
        before += length
    if cuda.threadIdx.x == THREADS - 1 and cuda.blockIdx.x == cuda.gridDim.x - 1:
        given.token_count[0] = before


def list_tokens(given):
    """List the batch's tokens with their rows of the batch and their ids, which are the keys of the sort."""
    first, rows = batch_rows(given)
    begin, end = own_items(given.token_count[0])
    for token in range(begin, end):
        i = owner_of(token, given.batch_starts, rows)
        start, _ = bag_start(given, first + i)
        given.token_owners[token] = i
        given.keys[0, token] = given.ids[start + token - given.batch_starts[i]]
        given.tokens[0, token] = token
    if MANY and given.passes > 0:
        count_digits(given, 0)


def count_digits(given, sort_pass):
    """Count the tokens that come before those of each digit and block."""
    begin, end = own_items(given.token_count[0])
    places, total = digit_places(given.keys, sort_pass, begin, end)
    for digit in range(cuda.threadIdx.x, DIGITS, THREADS):
        k = digit * THREADS
        count = total - places[k >> DIGIT_BITS, k & LAST_DIGIT]
        if digit < LAST_DIGIT:
            k += THREADS
            count -= total - places[k >> DIGIT_BITS, k & LAST_DIGIT]
        given.digit_counts[digit * cuda.gridDim.x + cuda.blockIdx.x] = count
    if is_last(given.tickets, 0, cuda.gridDim.x):
        scan(given.digit_counts, DIGITS * cuda.gridDim.x)


def sort_digit(given, sort_pass):
    """Sort tokens and keys by one digit, from one half of their arrays into the other."""
    keys = given.keys
    tokens = given.tokens
    thread = cuda.threadIdx.x
    begin, end = own_items(given.token_count[0])
    places, _ = digit_places(keys, sort_pass, begin, end)
    if MANY:
        shifts = cuda.shared.array(DIGITS, np.int32)
        for digit in range(thread, DIGITS, THREADS):
            k = digit * THREADS
            before = given.digit_counts[digit * cuda.gridDim.x + cuda.blockIdx.x]
            shifts[digit] = before - places[k >> DIGIT_BITS, k & LAST_DIGIT]
        cuda.syncthreads()
    source = sort_pass & 1
    for place in range(begin, end):
        key = keys[source, place]
        digit = (key >> (sort_pass * DIGIT_BITS)) & LAST_DIGIT
        k = digit * THREADS + thread
        target = places[k >> DIGIT_BITS, k & LAST_DIGIT]
        places[k >> DIGIT_BITS, k & LAST_DIGIT] = target + 1
        if MANY:
            target += shifts[digit]
        keys[1 - source, target] = key
        tokens[1 - source, target] = tokens[source, place]


def count_runs(given):
    """Count the runs that begin before each block's tokens."""
    begin, end = own_items(given.token_count[0])
    scan_blocks(run_sum(given.keys, given.passes, begin, end), given.run_counts, given.tickets)


def find_runs(given):
    """Number the runs; fill in each token's run, row of the batch (owner) and place in its bag (offset).

    `rows_seen` gets each run's id, and `run_starts` its first place and, last, the number of tokens.
    """
    keys = given.keys
    passes = given.passes
    begin, end = own_items(given.token_count[0])
    run, _ = block_scan(run_sum(keys, passes, begin, end))
    if MANY:
        run += given.run_counts[cuda.blockIdx.x]
    for place in range(begin, end):
        if starts_run(keys, passes, place):
            given.rows_seen[run] = keys[passes & 1, place]
            given.run_starts[run] = place
            run += 1
        given.runs[place] = run - 1
        token = given.tokens[passes & 1, place]
        i = given.token_owners[token]
        given.owners[place] = i
        if MAX or WEIGHTED:
            given.offsets[place] = token - given.batch_starts[i]
    if cuda.threadIdx.x == THREADS - 1 and cuda.blockIdx.x == cuda.gridDim.x - 1:
        given.seen[0] = run
        given.run_starts[run] = given.token_count[0]


def unique_rows(given):
    """Sort the batch's tokens by id and list the rows of the table that they name; by one block."""
    start_rows(given)
    cuda.syncthreads()
    list_tokens(given)
    cuda.syncthreads()
    for sort_pass in range(given.passes):
        sort_digit(given, sort_pass)
        cuda.syncthreads()
    find_runs(given)
