"""nnkit: dense neural networks at hardware speed, on NumPy or on a CUDA GPU.

The public names are loaded when they are first used, so that importing nnkit costs next to nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnkit.adapting import adapt as adapt
    from nnkit.data.sources.loading import load_dataset as load_dataset
    from nnkit.data.sources.loading import read_table as read_table
    from nnkit.errors import ConfigError as ConfigError
    from nnkit.errors import DataError as DataError
    from nnkit.errors import DeviceError as DeviceError
    from nnkit.errors import DeviceMemoryError as DeviceMemoryError
    from nnkit.errors import DivergenceError as DivergenceError
    from nnkit.errors import FileError as FileError
    from nnkit.errors import ModelFileError as ModelFileError
    from nnkit.errors import NnkitError as NnkitError
    from nnkit.estimators import MLPClassifier as MLPClassifier
    from nnkit.estimators import MLPRegressor as MLPRegressor
    from nnkit.feed.features import Bags as Bags
    from nnkit.feed.features import Features as Features
    from nnkit.insight.attributions import integrated_gradients as integrated_gradients
    from nnkit.insight.audits import audit as audit
    from nnkit.insight.importance import permutation_importance as permutation_importance
    from nnkit.insight.live_figure import LiveFigure as LiveFigure
    from nnkit.insight.perturbations import lime_values as lime_values
    from nnkit.insight.perturbations import shap_values as shap_values
    from nnkit.model import Model as Model
    from nnkit.model import load as load
    from nnkit.nn.activations import register_activation as register_activation
    from nnkit.nn.layers import Activation as Activation
    from nnkit.nn.layers import BatchEnsemble as BatchEnsemble
    from nnkit.nn.layers import Dense as Dense
    from nnkit.nn.layers import Dropout as Dropout
    from nnkit.nn.layers import Embedding as Embedding
    from nnkit.nn.layers import Ensemble as Ensemble
    from nnkit.nn.layers import LayerNorm as LayerNorm
    from nnkit.nn.layers import Periodic as Periodic
    from nnkit.nn.layers import PiecewiseLinear as PiecewiseLinear
    from nnkit.nn.layers import Residual as Residual
    from nnkit.nn.layers import Scale as Scale
    from nnkit.nn.layers import Sequential as Sequential
    from nnkit.nn.losses import Loss as Loss
    from nnkit.nn.losses import register_loss as register_loss
    from nnkit.nn.metrics import Metric as Metric
    from nnkit.nn.metrics import register_metric as register_metric
    from nnkit.nn.network import Network as Network
    from nnkit.nn.optimizers import SGD as SGD
    from nnkit.nn.optimizers import AdaGrad as AdaGrad
    from nnkit.nn.optimizers import Adam as Adam
    from nnkit.nn.optimizers import AdamW as AdamW
    from nnkit.nn.optimizers import Momentum as Momentum
    from nnkit.nn.optimizers import Nesterov as Nesterov
    from nnkit.nn.optimizers import RMSprop as RMSprop
    from nnkit.nn.schedules import Constant as Constant
    from nnkit.nn.schedules import Cosine as Cosine
    from nnkit.nn.schedules import CosLog4 as CosLog4
    from nnkit.nn.schedules import Exponential as Exponential
    from nnkit.nn.schedules import FlatCosine as FlatCosine
    from nnkit.nn.schedules import InverseTime as InverseTime
    from nnkit.nn.schedules import OneCycle as OneCycle
    from nnkit.nn.schedules import ReduceOnPlateau as ReduceOnPlateau
    from nnkit.nn.schedules import StepDecay as StepDecay
    from nnkit.training.callbacks import Callback as Callback
    from nnkit.training.callbacks import TrainingStatus as TrainingStatus
    from nnkit.training.checkpoint import Checkpoints as Checkpoints
    from nnkit.training.history import History as History
    from nnkit.training.progress import ProgressDisplay as ProgressDisplay
    from nnkit.training.trainer import Trainer as Trainer

_HOMES = {
    "nnkit.adapting": "adapt",
    "nnkit.data.sources.loading": "load_dataset read_table",
    "nnkit.errors": "ConfigError DataError DeviceError DeviceMemoryError "
    "DivergenceError FileError ModelFileError NnkitError",
    "nnkit.estimators": "MLPClassifier MLPRegressor",
    "nnkit.feed.features": "Bags Features",
    "nnkit.insight.attributions": "integrated_gradients",
    "nnkit.insight.audits": "audit",
    "nnkit.insight.importance": "permutation_importance",
    "nnkit.insight.live_figure": "LiveFigure",
    "nnkit.insight.perturbations": "lime_values shap_values",
    "nnkit.model": "Model load",
    "nnkit.nn.activations": "register_activation",
    "nnkit.nn.layers": "Activation BatchEnsemble Dense Dropout Embedding Ensemble LayerNorm Periodic "
    "PiecewiseLinear Residual Scale Sequential",
    "nnkit.nn.losses": "Loss register_loss",
    "nnkit.nn.metrics": "Metric register_metric",
    "nnkit.nn.network": "Network",
    "nnkit.nn.optimizers": "SGD AdaGrad Adam AdamW Momentum Nesterov RMSprop",
    "nnkit.nn.schedules": "Constant CosLog4 Cosine Exponential FlatCosine InverseTime OneCycle "
    "ReduceOnPlateau StepDecay",
    "nnkit.training.callbacks": "Callback TrainingStatus",
    "nnkit.training.checkpoint": "Checkpoints",
    "nnkit.training.history": "History",
    "nnkit.training.progress": "ProgressDisplay",
    "nnkit.training.trainer": "Trainer",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

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
