"""Findings of a training's curves: a loss that is flat, oscillates or diverges, and overfitting.

Order: the baseline, all checks together, each check. A loss has no scale of its own: it is measured relative
to that of the best constant prediction, the baseline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnkit.diagnostics.findings import Finding
from nnkit.nn.losses import Loss
from nnkit.training.history import History

__all__ = ["baseline_loss", "check_curves", "diverging_loss"]

# With fewer epochs or fewer updates, a curve cannot be judged.
_FEWEST_EPOCHS, _FEWEST_UPDATES = 5, 40
# As shares of the baseline: a loss that has fallen by less than the first has not moved; a loss that ends
# less than the second below the baseline has learnt nothing. That share is R² of a regression, or McFadden's
# R² (1974) of classes; he calls 0.2 a good fit.
_MOVED, _LEARNT = 0.01, 0.05
# A curve that still falls at half of its mean pace in the last third is straight: the rate is too small.
_STRAIGHT = 0.5
# A loss is called flat only if it ends above 1 − this share of the baseline. A straight curve must also have
# fallen by less than this share, or still be above the baseline: otherwise it is on its way.
_SMALL_FALL = 0.25
# A rise by this share of the baseline from one epoch to the next is more than noise in an epoch's mean loss.
# If the loss rises so in one epoch of four, it oscillates. (Measured on sound trainings: at most in one of
# twenty.)
_SWING, _SWINGING = 0.03, 0.25
# A loss that ends higher than its minimum by this share of the baseline has diverged.
_DIVERGED = 0.25
# The rise of the validation loss over its lowest value. Prechelt 1998, "Early stopping — but when?", stops at
# a generalisation loss of 1 to 5 %, to save time; a training that failed has more, and a rise that matters
# beside the baseline.
_GENERALISATION_LOSS, _RISE = 0.10, 0.05
_OVERFITTED_EPOCHS = 3
# A smaller rise counts where the lowest loss is in the first fifth of the epochs. A quarter is too much: a
# sound training on SMS spam has its lowest in epoch 5 of 20.
_EARLY, _EARLY_RISE = 0.2, 0.01
_MOST_TARGETS = 2_000
# A good loss scale overflows about once in 2000 steps, when it is doubled (Micikevicius et al. 2018, "Mixed
# precision training", arXiv:1710.03740, section 3.2, and the trainers' rule): one step in a hundred is twenty
# times as often. The 16 halvings from its initial 65536 to 1 do not count.
_SKIPPED, _HALVINGS = 0.01, 16


def baseline_loss(loss: Loss, targets: NDArray, weights: NDArray | None = None) -> float:
    """Return the mean loss of the best constant prediction: the classes' entropy, half a variance, ...

    `targets` are encoded: class indices (samples,), or (samples, outputs); `weights` are the samples'.
    """
    shares = np.ones(len(targets)) if weights is None else weights.astype(np.float64)
    shares = shares / max(float(shares.sum()), 1e-300)
    smoothing = float(loss.constants.get("label_smoothing", 0.0))
    if loss.link == "softmax":
        indices = targets.ndim == 1
        prior = np.bincount(targets.astype(np.int64), shares) if indices else shares @ targets
        count = len(prior)
        prior = (1 - smoothing) * prior + smoothing / count
        return float(-np.sum(prior * np.log(np.maximum(prior, 1e-300))))
    columns = targets.reshape(len(targets), -1).astype(np.float64)
    if loss.name == "binary_cross_entropy":
        yes = np.clip((1 - smoothing) * (shares @ columns) + smoothing / 2, 1e-15, 1 - 1e-15)
        each = -(yes * np.log(yes) + (1 - yes) * np.log(1 - yes))
    elif loss.name == "mse":
        each = 0.5 * shares @ (columns - shares @ columns) ** 2
    else:
        each = np.array([_least(loss, column, shares) for column in columns.T])
    return float(each.sum() if loss.reduction == "sum" else each.mean())


def _least(loss: Loss, column: NDArray, shares: NDArray) -> float:
    """Return the mean loss of the best constant output, by a search between the extremes."""
    from scipy.optimize import minimize_scalar

    rows = np.linspace(0, len(column) - 1, min(len(column), _MOST_TARGETS)).astype(np.int64)
    value = loss.value
    assert value is not None
    sampled = column[rows].tolist(), shares[rows] / max(float(shares[rows].sum()), 1e-300)

    def mean(output: float) -> float:
        pairs = zip(*sampled, strict=True)
        return sum(share * value(output, target, **loss.constants) for target, share in pairs)

    low, high = float(column.min()), float(column.max())
    if loss.link == "exp":
        low, high = np.log(max(low, 1e-3)), np.log(max(high, 1e-2))
    found = minimize_scalar(mean, bounds=(low, high), method="bounded", options={"maxiter": 30})
    return float(found.fun) if high > low else float(mean(low))


def check_curves(
    history: History, baseline: float, learning_rate: float, penalised: bool = False, stops: bool = False
) -> list[Finding]:
    """Return the findings of a training's history, a row for each epoch.

    With loss scaling it has the columns "loss_scale", at the end of the epoch, and "skipped_steps", a running
    count. A `penalised` training loss contains penalties, which the baseline does not: the validation
    loss, if there is one, is then judged in its place. Overfitting is no fault of a training
    that `stops` early and ends with its best weights.
    """
    thrashing = _thrashes(history, learning_rate)
    shaped = _shapes(history, baseline, learning_rate, penalised, stops)
    return shaped if thrashing is None else [thrashing, *shaped]


def _thrashes(history: History, rate: float) -> Finding | None:
    """Find a loss scale that overflows often, or has fallen to 1, where it has no effect."""
    if "skipped_steps" not in history or "loss_scale" not in history:
        return None
    skipped, scale = int(np.nanmax(history["skipped_steps"])), history["loss_scale"]
    steps = int(history["step"][-1])
    if skipped - _HALVINGS < _SKIPPED * steps and not scale[-1] <= 1:
        return None
    return Finding(
        "loss_scale_thrashing",
        "serious",
        f"{skipped:,} of {steps:,} steps were skipped for an overflow ({skipped / max(steps, 1):.1%}); the "
        f"loss scale went from {scale[0]:g} to {scale[-1]:g}",
        "A skipped step learns nothing, and with a small scale small gradients become 0: the numbers span a "
        "wider range than fp16 has.",
        f'Set run.precision = "bf16", or training.learning_rate = {rate / 10:.2g}.',
    )


def _shapes(
    history: History, baseline: float, learning_rate: float, penalised: bool, stops: bool
) -> list[Finding]:
    """Return the findings of the loss curves."""
    if len(history) < _FEWEST_EPOCHS or "loss" not in history or not baseline > 0:
        return []
    training = history["loss"] / baseline
    validation = history["validation_loss"] / baseline if "validation_loss" in history else None
    if penalised and validation is not None:
        name, judged = "validation", validation
    else:
        name, judged = "training", training
    if not np.isfinite(judged).all() or int(history["step"][-1]) < _FEWEST_UPDATES:
        return []
    too_large = _diverged(name, judged, baseline, learning_rate) or _swings(name, judged, learning_rate)
    if too_large is not None:
        return [too_large]
    flat = _flat(name, judged, baseline, learning_rate) or _underfitted(
        name, judged, validation, baseline, stops
    )
    overfitted = None if validation is None or stops else _overfitted(training, validation, history, baseline)
    return [finding for finding in (flat, overfitted) if finding is not None]


def _diverged(name: str, loss: NDArray, baseline: float, rate: float) -> Finding | None:
    least = int(np.argmin(loss))
    # A high loss alone is no divergence: it may have begun high and be falling. One rise is required, too.
    worse = loss[-1] > 1 + _DIVERGED and bool(np.any(np.diff(loss) > _SWING))
    if loss[-1] - loss[least] < _DIVERGED and not worse:
        return None
    risen = f"up from {loss[least] * baseline:.4g} in epoch {least + 1}"
    then = risen if least < len(loss) - 1 else "its lowest value"
    beside = f"; the best constant prediction's is {baseline:.4g}" if worse else ""
    seen = f"the {name} loss is {loss[-1] * baseline:.4g} at the end, {then}{beside}"
    return diverging_loss(seen, rate)


def diverging_loss(seen: str, rate: float) -> Finding:
    """Return the finding that a loss rises, or became infinite."""
    return Finding(
        "diverging_loss",
        "serious",
        seen,
        f"At a rate of {rate:g} each step overshoots and makes the weights worse.",
        f"Set training.learning_rate = {rate / 10:.2g} (nnkit tune-rate finds one), or "
        "training.clip_norm = 1.0.",
    )


def _swings(name: str, loss: NDArray, rate: float) -> Finding | None:
    changes = np.diff(loss)
    rises = changes > _SWING
    if rises.sum() < 2 or rises.mean() < _SWINGING:
        return None
    return Finding(
        "oscillating_loss",
        "serious",
        f"the {name} loss rose in {int(rises.sum())} of {len(changes)} epochs, by up to "
        f"{float(changes.max()):.0%} of the best constant prediction's loss",
        f"At a rate of {rate:g} steps jump across the minimum.",
        f"Set training.learning_rate = {rate / 10:.2g}, or a larger training.batch_size.",
    )


def _flat(name: str, loss: NDArray, baseline: float, rate: float) -> Finding | None:
    """Find a loss that has not moved, or falls slowly in a straight line."""
    fallen = float(loss[0] - loss[-1])
    third = max(1, len(loss) // 3)
    late = float(loss[-1 - third] - loss[-1]) / third
    straight = fallen > 0 and late >= _STRAIGHT * fallen / (len(loss) - 1)
    high = loss[-1] > 1 - _SMALL_FALL
    if not (high and (fallen < _MOVED or (straight and (fallen < _SMALL_FALL or loss[-1] > 1)))):
        return None
    return Finding(
        "flat_loss",
        "serious",
        f"the {name} loss went from {loss[0] * baseline:.4g} to {loss[-1] * baseline:.4g} in {len(loss)} "
        f"epochs; the best constant prediction's is {baseline:.4g}",
        f"Steps at a rate of {rate:g} are too small, or the features carry no information about the target.",
        f"Set training.learning_rate = {rate * 10:.2g} or larger (nnkit tune-rate finds one).",
    )


def _underfitted(
    name: str, loss: NDArray, validation: NDArray | None, baseline: float, stops: bool
) -> Finding | None:
    if loss[-1] < 1 - _LEARNT or (validation is not None and validation[-1] < 1 - _LEARNT):
        return None
    both = ""
    if validation is not None and name != "validation":
        both = f" and the validation loss {validation[-1] * baseline:.4g}"
    return Finding(
        "underfitting",
        "serious",
        f"the {name} loss is {loss[-1] * baseline:.4g}{both} at the end; the best constant prediction's is "
        f"{baseline:.4g}",
        "The network has hardly learnt anything: the features carry little information"
        + ("." if stops else ", or it was not trained long enough."),
        "Try other features" + ("." if stops else ", or more training.epochs."),
    )


def _overfitted(training: NDArray, validation: NDArray, history: History, baseline: float) -> Finding | None:
    """Find a validation loss that rose much after its lowest, or was lowest early and rose somewhat."""
    if not np.isfinite(validation).all():
        return None
    best = int(np.argmin(validation))
    since = len(validation) - 1 - best
    rise = float(validation[-1] - validation[best])
    relative = rise / max(float(validation[best]), 1e-12)
    much = relative >= _GENERALISATION_LOSS and rise >= _RISE
    early = best < _EARLY * len(validation) and relative >= _EARLY_RISE
    if since < _OVERFITTED_EPOCHS or not training[-1] < training[best] or not (much or early):
        return None
    values = f"from {validation[best] * baseline:.4g} to {validation[-1] * baseline:.4g}"
    falls = f"from {training[best] * baseline:.4g} to {training[-1] * baseline:.4g}"
    return Finding(
        "overfitting",
        "notice",
        f"since epoch {int(history['epoch'][best])} of {int(history['epoch'][-1])} the validation loss has "
        f"risen by {relative:.0%} ({values}) while the training loss fell ({falls})",
        "Since then the network has been memorising its training rows, which does not help with others.",
        f"Set training.early_stopping = {max(3, min(10, since // 2))} and training.cooldown = 1.0.",
    )
