"""Layers of nnkit's networks that PyTorch lacks, as its modules, and the rows and predictions around them.

`nnkit.export.torch` copies these classes and functions into the files that it writes: each is complete by
itself, and uses nothing but torch and what else is in this file.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


class PiecewiseLinear(nn.Module):
    """The inputs, followed by each number's shares of its column's bins: 0 below a bin, 1 above it.

    `counts` are the numbers of edges of the first columns; `edges` holds them, one column after the other.
    """

    library = "nnkit"
    edges: torch.Tensor

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts
        self.register_buffer("edges", torch.zeros(sum(counts), dtype=torch.float64))
        starts = [sum(counts[:column]) for column in range(len(counts))]
        bins = [(column, starts[column] + i) for column, n in enumerate(counts) for i in range(n - 1)]
        self.columns, self.lower = [column for column, _ in bins], [edge for _, edge in bins]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = self.edges[self.lower], self.edges[[edge + 1 for edge in self.lower]]
        inverse = (1 / (high - low)).to(x.dtype)
        shares = ((x[:, self.columns] - low.to(x.dtype)) * inverse).clamp(0, 1)
        return torch.cat([x, shares], dim=1)


class Periodic(nn.Module):
    """``cos(2πx · frequency + phase) · weight + bias`` for each of the first columns, then the inputs."""

    library = "nnkit"

    def __init__(self, columns: int, frequencies: int, lines: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.zeros(columns, frequencies))
        self.phase = nn.Parameter(torch.zeros(columns, frequencies))
        self.weight = nn.Parameter(torch.zeros(columns, lines, frequencies))
        self.bias = nn.Parameter(torch.zeros(columns, lines))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turns = x[:, : len(self.frequency), None] * self.frequency + self.phase / (2 * math.pi)
        waves = torch.cos(2 * math.pi * (turns - turns.detach().round()))
        lines = torch.einsum("ncf,clf->ncl", waves, self.weight) + self.bias
        return torch.cat([lines.flatten(1), x], dim=1)


class Scale(nn.Module):
    """Each input times a factor that is learnt."""

    library = "nnkit"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.view(x.shape[1:])


class BatchEnsemble(nn.Module):
    """A linear layer of several members, which share its weight but for scales: (rows, members, units)."""

    library = "nnkit"

    def __init__(self, inputs: int, units: int, members: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(units, inputs))
        self.input_scale = nn.Parameter(torch.ones(members, inputs))
        self.output_scale = nn.Parameter(torch.ones(members, units))
        self.bias = nn.Parameter(torch.zeros(members, units)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.dim() == 3 else x[:, None]  # the same inputs for all members
        z = nn.functional.linear(x * self.input_scale, self.weight) * self.output_scale
        return z if self.bias is None else z + self.bias


class Residual(nn.Sequential):
    """x + F(x): F is the layers."""

    library = "nnkit"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


class Ensemble(nn.Sequential):
    """Members, whose outputs are joined to those of the mean of their predictions, by their logarithms.

    `link` leads from outputs to predictions: identity, sigmoid, softmax or exp. With `own`, the inputs have
    the shape (rows, members, width).
    """

    library = "nnkit"

    def __init__(self, *members: nn.Module, link: str, own: bool = False) -> None:
        super().__init__(*members)
        self.link, self.own = link, own

    def forward(self, x: torch.Tensor, *bags: Any) -> torch.Tensor:
        z = torch.stack([member(x[:, i] if self.own else x, *bags) for i, member in enumerate(self)])
        if self.link == "identity":
            return z.mean(0)
        if self.link == "sigmoid":
            yes, no = nn.functional.logsigmoid(z), nn.functional.logsigmoid(-z)
            return yes.logsumexp(0) - no.logsumexp(0)
        if self.link == "softmax":
            z = z.log_softmax(2)
        return z.logsumexp(0) - math.log(len(self))


class Lookup(nn.Sequential):
    """The inputs, followed by a vector for each bag of ids; the layers are the `nn.EmbeddingBag` of each.

    A bag is (ids, starts) or (ids, starts, weights): row r has the ids from starts[r] to starts[r + 1], and a
    bag with weights has their weighted mean or sum.
    """

    library = "nnkit"

    def forward(self, x: torch.Tensor, *bags: Any) -> torch.Tensor:
        vectors = [self.vectors(table, *bag) for table, bag in zip(self, bags, strict=True)]
        return torch.cat([x, *vectors], dim=1)

    def vectors(self, table: Any, ids: Any, starts: Any, weights: Any = None) -> torch.Tensor:
        if weights is None or table.mode != "mean":
            return table(ids, starts, weights)
        row = torch.repeat_interleave(torch.arange(len(starts) - 1, device=ids.device), starts.diff())
        totals = weights.new_zeros(len(starts) - 1).index_add(0, row, weights)[row]
        shares = torch.where(totals == 0, 0, weights / totals)
        options: Any = {"mode": "sum", "per_sample_weights": shares, "include_last_offset": True}
        return nn.functional.embedding_bag(ids, table.weight, starts, **options)


class WithBags(nn.Sequential):
    """A network whose first layer, a `Lookup`, also reads bags of ids."""

    library = "nnkit"

    def forward(self, x: torch.Tensor, *bags: Any) -> torch.Tensor:
        x = self[0](x, *bags)
        for layer in list(self)[1:]:
            x = layer(x)
        return x


def encode(table: Any, numbers: list[Any], categories: list[Any], dtype: torch.dtype) -> tuple[Any, ...]:
    """Return the network's arguments for a dict of columns: sequences of numbers, or of texts.

    A missing value is None, or NaN among numbers; texts have no spaces around them. The inputs are the
    numbers, the flags of missing values and the one-hot categories; each embedded category is a bag of its
    id, or of none.
    """
    inputs, flags, one_hot, bags = [], [], [], []
    for name, fill, shift, scale, flagged, clipped in numbers:
        given = [math.nan if value is None else value for value in table[name]]
        x = torch.tensor(given, dtype=torch.float64)
        flags += [x.isnan()[:, None]] if flagged else []
        x = (torch.where(x.isnan(), fill, x) - shift) * scale
        x = x / torch.hypot(torch.ones_like(x), x / 3) if clipped else x
        inputs.append(x[:, None])
    for name, values, of_missing, of_unseen, width, embedded in categories:
        places = {value: place for place, value in enumerate(values)} | {None: of_missing}
        codes = torch.tensor([places.get(value, of_unseen) for value in table[name]])
        if embedded:
            counts = torch.cat([torch.zeros(1, dtype=torch.int64), codes >= 0])
            bags.append((codes[codes >= 0], counts.cumsum(0)))
        else:
            one_hot.append(codes[:, None] == torch.arange(width))
    rows = len(next(iter(table.values())))
    parts = [torch.zeros(rows, 0), *inputs, *flags, *one_hot]
    return (torch.cat([part.to(dtype) for part in parts], dim=1), *bags)


def interpolate(x: torch.Tensor, knots: Any, values: Any) -> torch.Tensor:
    """Return the values at x of a function that is linear between knots, and constant beyond the last."""
    knots, values = (torch.tensor(one, dtype=x.dtype) for one in (knots, values))
    place = torch.searchsorted(knots, x.contiguous()).clamp(1, max(1, len(knots) - 1))
    if len(knots) == 1:
        return values[0].expand_as(x)
    share = ((x - knots[place - 1]) / (knots[place] - knots[place - 1])).clamp(0, 1)
    return values[place - 1] + share * (values[place] - values[place - 1])
