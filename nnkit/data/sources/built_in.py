"""The data sets that come by name: scikit-learn's small ones, made-up ones, and MNIST to download."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnkit.cache import cache_folder
from nnkit.data.arrays.idx import load_image_sets
from nnkit.data.examples import Dataset, Examples
from nnkit.data.sources.download import RemoteFile, fetch
from nnkit.errors import FileError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BUILT_INS", "load_built_in"]

_WINE = [
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280/od315_of_diluted_wines",
    "proline",
]
_IRIS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
_DIABETES = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
_NUCLEUS = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
]
_BREAST_CANCER = [
    pattern.format(name) for pattern in ("mean {}", "{} error", "worst {}") for name in _NUCLEUS
]

_IMAGE_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_SHA256 = (
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)
_FASHION_MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# MD5, for these are the digests that the data's authors publish: github.com/zalandoresearch/fashion-mnist.
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)


def load_built_in(name: str) -> Dataset | pa.Table:
    """Return a built-in: a table whose last column is the target, or a set of images with its labels."""
    return BUILT_INS[name]()


def _packaged(name: str, delimiter: str = ",", skip: int = 0) -> NDArray[np.float64]:
    """Read a file of numbers that scikit-learn ships, without importing scikit-learn (1 to 2 s)."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise FileError("scikit-learn, whose data this is, is not installed: pip install scikit-learn")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as stream:
                return np.loadtxt(stream, delimiter=delimiter, skiprows=skip)
        return np.loadtxt(path, delimiter=delimiter, skiprows=skip)
    except (OSError, EOFError) as error:
        raise FileError(f"{path}: cannot be read ({error}): install scikit-learn again") from None


def _table(names: list[str], features: NDArray, target_name: str, target: NDArray) -> pa.Table:
    import pyarrow as pa

    from nnkit.data.tables.arrow import arrow_array

    columns = [arrow_array(column) for column in (*features.T, target)]
    return pa.table(columns, names=[*names, target_name])


def _labelled(values: NDArray[np.float64], names: list[str]) -> pa.Table:
    return _table(names, values[:, :-1], "target", values[:, -1].astype(np.int64))


def _iris() -> pa.Table:
    return _labelled(_packaged("iris.csv", skip=1), _IRIS)


def _wine() -> pa.Table:
    return _labelled(_packaged("wine_data.csv", skip=1), _WINE)


def _breast_cancer() -> pa.Table:
    return _labelled(_packaged("breast_cancer.csv", skip=1), _BREAST_CANCER)


def _diabetes() -> pa.Table:
    """The features in their own units: `load_diabetes(scaled=False)`."""
    features = _packaged("diabetes_data_raw.csv.gz", delimiter=" ")
    return _table(_DIABETES, features, "target", _packaged("diabetes_target.csv.gz"))


def _digits() -> Dataset:
    values = _packaged("digits.csv.gz")
    examples = Examples(values[:, :-1].astype(np.uint8), values[:, -1].astype(np.int64))
    return Dataset("digits", examples, None, ("target",), (8, 8))


def _xor() -> pa.Table:
    features = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return _table(["a", "b"], features, "target", np.array([0, 1, 1, 0]))


def _exam() -> pa.Table:
    features = np.array([[2, 5], [4, 6], [6, 7], [8, 8], [3, 4], [7, 6]], dtype=np.float64)
    return _table(["hours_studied", "hours_slept"], features, "passed", np.array([0, 0, 1, 1, 0, 1]))


def _moons() -> pa.Table:
    """Two half circles, one inside the other, 500 rows each, with noise of standard deviation 0.2."""
    target = np.repeat([0, 1], 500)
    angle = np.tile(np.linspace(0.0, np.pi, 500), 2)
    x = np.where(target == 0, np.cos(angle), 1.0 - np.cos(angle))
    y = np.where(target == 0, np.sin(angle), 0.5 - np.sin(angle))
    generator = np.random.Generator(np.random.Philox(0))
    features = np.column_stack([x, y]) + 0.2 * generator.standard_normal((1000, 2))
    order = generator.permutation(1000)
    return _table(["x1", "x2"], features[order], "target", target[order])


def _images(name: str, mirror: str, algorithm: str, digests: tuple[str, ...]) -> Dataset:
    folder = cache_folder() / name
    mend = (
        f"give a folder that holds the four files {_IMAGE_FILES[0]}, ..., or put them into the cache folder"
    )
    train_images, train_labels, test_images, test_labels = (
        fetch(RemoteFile(mirror + file, algorithm, digest), folder, mend)
        for file, digest in zip(_IMAGE_FILES, digests, strict=True)
    )
    # By their names: another file in the folder has no digest that could be checked.
    return load_image_sets(folder, (train_images, train_labels), (test_images, test_labels))


def _mnist() -> Dataset:
    return _images("mnist", _MNIST_MIRROR, "sha256", _MNIST_SHA256)


def _fashion_mnist() -> Dataset:
    return _images("fashion_mnist", _FASHION_MIRROR, "md5", _FASHION_MD5)


BUILT_INS: dict[str, Callable[[], Dataset | pa.Table]] = {
    "digits": _digits,
    "iris": _iris,
    "wine": _wine,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
    "xor": _xor,
    "exam": _exam,
    "moons": _moons,
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
}
