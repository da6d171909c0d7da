"""The data sets that come by name: scikit-learn's small ones, made-up ones, and MNIST to download."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnkit.cache import ADVICE, cache_folder
from nnkit.data.arrays.idx import load_image_sets
from nnkit.data.examples import Dataset, Examples
from nnkit.data.messages import reason
from nnkit.errors import FileError
from nnkit.working import Work, working

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BUILT_INS", "load_built_in"]

_WINE = (
    "alcohol malic_acid ash alcalinity_of_ash magnesium total_phenols flavanoids nonflavanoid_phenols "
    "proanthocyanins color_intensity hue od280/od315_of_diluted_wines proline"
).split()
_IRIS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
_DIABETES = "age sex bmi bp s1 s2 s3 s4 s5 s6".split()
_NUCLEUS = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity"),
    *("concave points", "symmetry", "fractal dimension"),
)
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
_MNIST_HASHES = (
    "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)
_FASHION_MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# MD5, which the data's authors publish: github.com/zalandoresearch/fashion-mnist.
_FASHION_HASHES = (
    "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "md5:25c81989df183df01b3e8a0aad5dffbe",
    "md5:bef4ecab320f06d8554ea6380940ec79",
    "md5:bb300cfdad3c16e7a12a480ee83cd310",
)
_TIMEOUT_SECONDS = 30
_CHUNK = 1 << 16
# The largest of the files is 30 MB; a longer answer is an error.
_MOST_BYTES = 128 << 20


def load_built_in(name: str) -> Dataset | pa.Table:
    """Return a built-in: a table with the target as its last column, or a set of images with its labels."""
    return BUILT_INS[name]()


# --- small tables ---


def _packaged(name: str, delimiter: str = ",", skip: int = 0) -> NDArray[np.float64]:
    """Read a file of numbers that scikit-learn ships, without importing scikit-learn (1 to 2 s)."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise FileError("scikit-learn, which ships this data, is not installed: pip install scikit-learn")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name
    try:
        return np.loadtxt(path, delimiter=delimiter, skiprows=skip)  # unpacked where it is a .gz
    except (OSError, EOFError) as error:
        raise FileError(f"{path}: cannot be read ({error}): install scikit-learn again") from None


def _table(names: list[str], features: NDArray, target: NDArray, target_name: str = "target") -> pa.Table:
    import pyarrow as pa

    from nnkit.data.tables.arrow import arrow_array

    columns = [arrow_array(column) for column in (*features.T, target)]
    return pa.table(columns, names=[*names, target_name])


def _labelled(file: str, names: list[str]) -> pa.Table:
    values = _packaged(file, skip=1)
    return _table(names, values[:, :-1], values[:, -1].astype(np.int64))


def _diabetes() -> pa.Table:
    """The features in their own units: `load_diabetes(scaled=False)`."""
    features = _packaged("diabetes_data_raw.csv.gz", delimiter=" ")
    return _table(_DIABETES, features, _packaged("diabetes_target.csv.gz"))


def _digits() -> Dataset:
    values = _packaged("digits.csv.gz")
    examples = Examples(values[:, :-1].astype(np.uint8), values[:, -1].astype(np.int64))
    return Dataset("digits", examples, None, ("target",), (8, 8))


def _xor() -> pa.Table:
    features = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return _table(["a", "b"], features, np.array([0, 1, 1, 0]))


def _exam() -> pa.Table:
    features = np.array([[2, 5], [4, 6], [6, 7], [8, 8], [3, 4], [7, 6]], dtype=np.float64)
    return _table(["hours_studied", "hours_slept"], features, np.array([0, 0, 1, 1, 0, 1]), "passed")


def _moons() -> pa.Table:
    """Two half circles, one inside the other, 500 rows each, with noise of standard deviation 0.2."""
    target = np.repeat([0, 1], 500)
    angle = np.tile(np.linspace(0.0, np.pi, 500), 2)
    x = np.where(target == 0, np.cos(angle), 1.0 - np.cos(angle))
    y = np.where(target == 0, np.sin(angle), 0.5 - np.sin(angle))
    generator = np.random.Generator(np.random.Philox(0))
    features = np.column_stack([x, y]) + 0.2 * generator.standard_normal((1000, 2))
    order = generator.permutation(1000)
    return _table(["x1", "x2"], features[order], target[order])


# --- downloads ---


def _images(name: str, mirror: str, hashes: tuple[str, ...]) -> Dataset:
    folder = cache_folder() / name
    train_images, train_labels, test_images, test_labels = (
        _fetch(mirror + file, known_hash, folder)
        for file, known_hash in zip(_IMAGE_FILES, hashes, strict=True)
    )
    # By their names: another file in the folder has no hash to check.
    return load_image_sets(folder, (train_images, train_labels), (test_images, test_labels))


class _Progress:
    """A progress bar for pooch that reports to `working`, and stops an answer that does not end."""

    total = 0

    def __init__(self, work: Work) -> None:
        self._work = work

    def update(self, count: int) -> None:
        self._work.advance(count)
        if self._work.done > _MOST_BYTES:
            raise FileError("the answer is larger than any file of the data set")

    def reset(self) -> None:
        self._work.done = 0

    def close(self) -> None:
        pass


def _fetch(url: str, known_hash: str, folder: Path) -> Path:
    """Return a file in the cache, downloaded if it is missing or altered; it has the known hash."""
    import pooch  # 0.1 s, and requests with it

    name = url.rsplit("/", 1)[-1]
    pooch.get_logger().setLevel("WARNING")
    try:
        with working(f"downloading {name}", unit="bytes") as work:
            http = pooch.HTTPDownloader(_Progress(work), _CHUNK, timeout=_TIMEOUT_SECONDS)

            def download(url: str, file: str, pooch: object) -> None:
                Path(file).unlink()  # made with mode 0600; a new file has the mode that the umask allows
                http(url, file, pooch)

            return Path(pooch.retrieve(url, known_hash, name, folder, downloader=download))
    except ValueError:
        raise FileError(
            f"{url}: the hash of the download is wrong, so it was cut short or altered: try again"
        ) from None
    except OSError as error:
        if error.errno is not None:  # errors of a connection have none
            raise FileError(
                f"{folder / name}: cannot be written: {error.strerror or error}: {ADVICE}"
            ) from None
        raise FileError(
            f"cannot download {url} into {folder} ({reason(error)}): give a folder that holds the four files "
            f"{_IMAGE_FILES[0]}, ..., or put them into the cache folder"
        ) from None


BUILT_INS: dict[str, Callable[[], Dataset | pa.Table]] = {
    "digits": _digits,
    "iris": partial(_labelled, "iris.csv", _IRIS),
    "wine": partial(_labelled, "wine_data.csv", _WINE),
    "breast_cancer": partial(_labelled, "breast_cancer.csv", _BREAST_CANCER),
    "diabetes": _diabetes,
    "xor": _xor,
    "exam": _exam,
    "moons": _moons,
    "mnist": lambda: _images("mnist", _MNIST_MIRROR, _MNIST_HASHES),
    "fashion_mnist": lambda: _images("fashion_mnist", _FASHION_MIRROR, _FASHION_HASHES),
}
