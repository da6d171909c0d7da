"""One row for a person to look at: as a picture where the inputs are, else in words."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from nnkit.data.pictures.columns import Pictures
from nnkit.insight.evaluated_model import EvaluatedModel, as_picture

__all__ = ["picture_of", "picture_url", "words_of"]

_LONGEST_TEXT = 160
_MOST_VALUES = 8
_LARGEST_SIDE = 96  # of a picture in a page
_LOSSLESS_PIXELS = 32 * 32  # a larger picture is a photograph, a tenth as many bytes as a JPEG


def picture_of(evaluated: EvaluatedModel, row: int) -> NDArray[np.uint8]:
    """Return a row as a picture, shape (height, width) or (height, width, 3)."""
    features = evaluated.examples.features
    if isinstance(features, Pictures):
        return as_picture(features.pixels[features.rows[row]], features.settings.shape)
    assert isinstance(features, np.ndarray)
    assert evaluated.image_shape is not None
    low, high = evaluated.pixel_range
    scaled = (np.asarray(features[row], np.float64) - low) / max(high - low, 1e-30) * 255
    return as_picture(np.clip(scaled, 0, 255).astype(np.uint8), evaluated.image_shape)


def picture_url(evaluated: EvaluatedModel, row: int) -> str:
    """Return a row's picture as a ``data:`` URL."""
    from PIL import Image

    image = Image.fromarray(picture_of(evaluated, row))
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    small = image.width * image.height <= _LOSSLESS_PIXELS
    buffer = io.BytesIO()
    kind = "png" if small else "jpeg"
    image.save(buffer, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def words_of(evaluated: EvaluatedModel, row: int) -> str:
    """Return a row's first values in words: by column, a text cut short; of a picture its file."""
    features = evaluated.examples.features
    if isinstance(features, Pictures):
        return features.names[row] if features.paths else ""
    if isinstance(features, np.ndarray):
        if evaluated.pictures:
            return ""
        return ", ".join(f"{value:.4g}" for value in features[row][:_MOST_VALUES].tolist()) + _more(
            features.shape[1]
        )
    names = features.column_names[:_MOST_VALUES]
    cells = [(name, features[name][row].as_py()) for name in names]
    if len(features.column_names) == 1:
        return _cut(cells[0][1])
    return "; ".join(f"{name} {_cut(value)}" for name, value in cells) + _more(len(features.column_names))


def _more(columns: int) -> str:
    return f" … ({columns:,} columns)" if columns > _MOST_VALUES else ""


def _cut(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
