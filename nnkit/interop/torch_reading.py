"""nnkit's layers for the modules of PyTorch, without torch: modules are known by their classes' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Shape
from nnkit.errors import ConfigError
from nnkit.interop.assembly import Part, Parts, assembled
from nnkit.interop.torch_pieces import ACTIVATIONS
from nnkit.nn.layers import (
    Activation,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    LayerNorm,
    Periodic,
    PiecewiseLinear,
    Residual,
    Scale,
)
from nnkit.nn.network import Network

__all__ = ["network_of"]

_INSTEAD = {
    "BatchNorm1d": "nnkit has no batch normalisation; use LayerNorm",
    "Softmax": "nnkit's outputs are logits; leave it out, the loss and predict_proba apply it",
    "LogSoftmax": "nnkit's outputs are logits; leave it out, the loss and predict_proba apply it",
    "Embedding": "an Embedding comes first, and its ids are the network's bags",
    "EmbeddingBag": "an EmbeddingBag comes first, and its ids are the network's bags",
}
# Of torch's activations: arguments that would change the function, and their defaults.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "LeakyReLU": {"negative_slope": 0.01},
    "ELU": {"alpha": 1.0},
    "GELU": {"approximate": "none"},
    "Softplus": {"beta": 1.0, "threshold": 20.0},
}


def network_of(module: Any) -> Network:
    """Return the network of a torch module; see `nnkit.interop.torch.from_module`."""
    wide = any(str(parameter.dtype) == "torch.float64" for parameter in module.parameters())
    modules = _listed(module, "")
    parts, embedded = Parts(), 0
    while modules and _is_table(modules[0][1]):
        part, width = _table(*modules.pop(0))
        parts.parts.append(part)
        embedded += width
    if embedded and not (kind_of(module) == "WithBags" or len(parts.parts) == 1):
        raise ConfigError("several Embeddings follow each other; put them into a Lookup, as to_module does")
    if embedded and kind_of(module) != "WithBags":
        parts.shape = (embedded,)
    _read(modules, parts)
    takes = embedded if parts.takes is None and embedded else parts.takes
    inputs = None if takes is None else takes - embedded
    if inputs is not None and inputs < 0:
        raise ConfigError(
            f"the first layer takes {takes} inputs, fewer than the {embedded} of the embeddings"
        )
    return assembled(parts, inputs, np.float64 if wide else np.float32)


def kind_of(module: Any) -> str | None:
    """Return the name of a module's class, if it is torch's or nnkit's own, or computes as one of these.

    None for any other, whatever its name.
    """
    kind: Any = type(module)
    for base in kind.__mro__:
        if base.__module__.startswith("torch.nn.modules.") or vars(base).get("library") == "nnkit":
            # A parametrised module computes its weights at each call.
            is_plain = kind.forward is base.forward and "parametrizations" not in module._modules
            return str(base.__name__) if is_plain else None
    return None


Named = tuple[str, Any]


def _listed(module: Any, name: str) -> list[Named]:
    """Return the modules of nested sequences with their places, such as ``0.2``."""
    _check_hooks(module, name)
    if kind_of(module) not in ("Sequential", "WithBags", "Lookup"):
        return [(name, module)]
    return _inside(name, module)


def _inside(name: str, module: Any) -> list[Named]:
    inner = module._modules.items()  # named_children leaves out a module that stands there twice
    return [one for place, child in inner for one in _listed(child, f"{name}.{place}".lstrip("."))]


def _words(name: str, module: Any) -> str:
    return f"module {name or '(the whole)'}, {type(module).__name__},"


def _check_hooks(module: Any, name: str) -> None:
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise ConfigError(
            f"{_words(name, module)} has hooks or a forward of its own: remove them to import it"
        )


def _read(modules: Sequence[Named], parts: Parts) -> None:
    """Append the layers of modules that follow each other."""
    for name, module in modules:
        kind = kind_of(module)
        if kind in ("Identity", "Flatten"):
            if kind == "Flatten" and (module.start_dim, module.end_dim) not in ((1, -1), (1, 1)):
                raise ConfigError(f"{_words(name, module)} has a start_dim other than 1")
            continue
        if kind in _ACTIVATION_NAMES:
            part = Part(Activation(_activation(name, module)), _words(name, module))
        elif kind is not None and kind in _READERS:
            part = _READERS[kind](name, module, parts.shape)
        else:
            raise _unknown(name, module)
        parts.add(part)


def _unknown(name: str, module: Any) -> ConfigError:
    kind = type(module).__name__
    instead = _INSTEAD.get(kind if kind_of(module) else "")
    if instead is None:
        known = [*_READERS, *_ACTIVATION_NAMES, "Embedding", "EmbeddingBag", "Sequential"]
        instead = f"nnkit reads {', '.join(sorted(known))}"
    return ConfigError(f"{_words(name, module)} cannot be imported: {instead}")


_ACTIVATION_NAMES = {torch_name: name for name, torch_name in ACTIVATIONS.items() if name != "identity"}


def _activation(name: str, module: Any) -> str:
    kind = type(module).__name__
    for argument, default in _DEFAULTS.get(kind, {}).items():
        given = getattr(module, argument)
        if given != default:
            raise ConfigError(f"{_words(name, module)} has {argument} = {given}, and nnkit's has {default}")
    return _ACTIVATION_NAMES[kind]


def _arrays(module: Any) -> dict[str, NDArray]:
    """Return a module's own parameters as arrays of float64."""
    own = module.named_parameters(recurse=False)
    return {name: tensor.detach().cpu().double().numpy() for name, tensor in own}


def _is_table(module: Any) -> bool:
    return kind_of(module) in ("Embedding", "EmbeddingBag")


def _table(name: str, module: Any) -> tuple[Part, int]:
    """Return the layer of an embedding, and the width of its vectors."""
    reduce: Any = getattr(module, "mode", "sum")  # an Embedding's row has one id
    if module.max_norm is not None or (reduce != "sum" and module.padding_idx is not None):
        raise ConfigError(f"{_words(name, module)} has max_norm or padding_idx, which nnkit's has not")
    layer = Embedding(module.num_embeddings, module.embedding_dim, reduce)
    return Part(layer, _words(name, module), [_arrays(module)]), module.embedding_dim


def _linear(name: str, module: Any, shape: Shape | None) -> Part:
    own = _arrays(module)
    own["weight"] = own["weight"].T
    layer = Dense(module.out_features, bias="bias" in own)
    return Part(layer, _words(name, module), [own], module.in_features)


def _layer_norm(name: str, module: Any, shape: Shape | None) -> Part:
    own = _arrays(module)
    if len(module.normalized_shape) != 1 or "weight" not in own:
        raise ConfigError(f"{_words(name, module)} must have a weight for each of a row's numbers")
    layer = LayerNorm(module.eps, bias="bias" in own)
    return Part(layer, _words(name, module), [own], module.normalized_shape[0])


def _dropout(name: str, module: Any, shape: Shape | None) -> Part:
    try:
        return Part(Dropout(module.p), _words(name, module))
    except ConfigError as error:
        raise ConfigError(f"{_words(name, module)} {error}") from error


def _scale(name: str, module: Any, shape: Shape | None) -> Part:
    own = _arrays(module)
    return Part(Scale(), _words(name, module), [own], len(own["weight"]))


def _bins(name: str, module: Any, shape: Shape | None) -> Part:
    edges = np.split(module.edges.detach().cpu().double().numpy(), np.cumsum(module.counts)[:-1])
    layer = PiecewiseLinear(max(1, max(module.counts) - 1), tuple(map(tuple, edges)))
    return Part(layer, _words(name, module), grows=layer.bin_count)


def _periodic(name: str, module: Any, shape: Shape | None) -> Part:
    own = _arrays(module)
    columns, lines, frequencies = own["weight"].shape
    layer = Periodic(frequencies, lines + 1, columns=columns)
    return Part(layer, _words(name, module), [own], grows=columns * lines)


def _batch_ensemble(name: str, module: Any, shape: Shape | None) -> Part:
    own = _arrays(module)
    units, inputs = own["weight"].shape
    own["weight"] = own["weight"].T
    members = len(own["input_scale"])
    layer = BatchEnsemble(units, bias="bias" in own, members=members)
    takes = members * inputs if shape == (members, inputs) else inputs
    return Part(layer, _words(name, module), [own], takes)


def _residual(name: str, module: Any, shape: Shape | None) -> Part:
    inner = Parts(shape)
    _read(_inside(name, module), inner)
    return Part(Residual(inner.layers), _words(name, module), inner.parameters, inner.takes)


def _ensemble(name: str, module: Any, shape: Shape | None) -> Part:
    members = []
    for one in module._modules.items():
        members.append(Parts(shape[1:] if module.own and shape is not None else shape))
        _read(_listed(one[1], f"{name}.{one[0]}".lstrip(".")), members[-1])
    if any(member.layers != members[0].layers for member in members):
        raise ConfigError(f"{_words(name, module)} has members of different layers")
    layer = Ensemble(members[0].layers, members=len(members), link=module.link)
    parameters = [values for member in members for values in member.parameters]
    takes = None if module.own else members[0].takes
    return Part(layer, _words(name, module), parameters, takes)


_READERS: Mapping[str, Callable[[str, Any, Shape | None], Part]] = {
    "BatchEnsemble": _batch_ensemble,
    "Dropout": _dropout,
    "Ensemble": _ensemble,
    "LayerNorm": _layer_norm,
    "Linear": _linear,
    "Periodic": _periodic,
    "PiecewiseLinear": _bins,
    "Residual": _residual,
    "Scale": _scale,
}
