"""nnkit: dense neural networks at hardware speed, on NumPy or on a CUDA GPU.

The public names are loaded when they are first used, so that importing nnkit costs next to nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnkit.data.sources.loading import load_dataset as load_dataset
    from nnkit.data.sources.loading import read_table as read_table
    from nnkit.errors import NnkitError as NnkitError
    from nnkit.estimators import MLPClassifier as MLPClassifier
    from nnkit.estimators import MLPRegressor as MLPRegressor
    from nnkit.insight.live_figure import LiveFigure as LiveFigure
    from nnkit.model import Model as Model
    from nnkit.model import load as load
    from nnkit.nn.activations import register_activation as register_activation
    from nnkit.nn.layers import Activation as Activation
    from nnkit.nn.layers import Dense as Dense
    from nnkit.nn.layers import Dropout as Dropout
    from nnkit.nn.layers import Embedding as Embedding
    from nnkit.nn.layers import LayerNorm as LayerNorm
    from nnkit.nn.layers import Residual as Residual
    from nnkit.nn.layers import Sequential as Sequential
    from nnkit.nn.losses import register_loss as register_loss
    from nnkit.nn.network import Network as Network
    from nnkit.nn.optimizers import SGD as SGD
    from nnkit.nn.optimizers import AdaGrad as AdaGrad
    from nnkit.nn.optimizers import Adam as Adam
    from nnkit.nn.optimizers import AdamW as AdamW
    from nnkit.nn.optimizers import Momentum as Momentum
    from nnkit.nn.optimizers import Nesterov as Nesterov
    from nnkit.nn.optimizers import RMSprop as RMSprop
    from nnkit.training.callbacks import Callback as Callback
    from nnkit.training.callbacks import Figures as Figures
    from nnkit.training.history import History as History
    from nnkit.training.progress import ProgressDisplay as ProgressDisplay
    from nnkit.training.trainer import Trainer as Trainer

_HOMES = {
    "nnkit.nn.activations": ("register_activation",),
    "nnkit.nn.layers": ("Activation", "Dense", "Dropout", "Embedding", "LayerNorm", "Residual", "Sequential"),
    "nnkit.nn.losses": ("register_loss",),
    "nnkit.nn.network": ("Network",),
    "nnkit.nn.optimizers": ("AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "RMSprop", "SGD"),
    "nnkit.data.sources.loading": ("load_dataset", "read_table"),
    "nnkit.errors": ("NnkitError",),
    "nnkit.estimators": ("MLPClassifier", "MLPRegressor"),
    "nnkit.insight.live_figure": ("LiveFigure",),
    "nnkit.model": ("Model", "load"),
    "nnkit.training.callbacks": ("Callback", "Figures"),
    "nnkit.training.history": ("History",),
    "nnkit.training.progress": ("ProgressDisplay",),
    "nnkit.training.trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME), "__version__"]


def _check_kernels() -> None:
    """Raise ImportError unless `nnkit.kernels` is of the same installation or checkout as this file.

    In a checkout the kernels lie beside this folder, and only an editable install makes them `nnkit.kernels`.
    Python that was started in a checkout imports this folder from there, whatever is installed.
    """
    package = os.path.dirname(os.path.realpath(__file__))
    checkout = os.path.dirname(package)
    found = find_spec("nnkit.kernels")
    allowed = (os.path.join(package, "kernels"), os.path.join(checkout, "kernels"))
    if found is None or os.path.dirname(os.path.realpath(found.origin or "")) not in allowed:
        raise ImportError(
            f"{checkout} is a checkout of nnkit that is not installed: start Python in another folder to use "
            f"the installed nnkit, or install the checkout by pip install -e {checkout}"
        )


_check_kernels()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from nnkit.versions import nnkit_version

        return nnkit_version()
    if name not in _HOME:
        raise AttributeError(f"module 'nnkit' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
