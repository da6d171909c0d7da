"""Pictures: decoding against Pillow and NumPy, where they come from, the cache, and what becomes of them."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nnkit.data.pictures import cache as picture_cache
from nnkit.data.pictures import decoding as picture_decoding
from nnkit.data.pictures.cache import decode_pictures
from nnkit.data.pictures.columns import PictureOptions, Pictures, PictureSettings
from nnkit.data.pictures.decoding import decode_file
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import ConfigError, DataError, FileError, ModelFileError
from nnkit.feed.features import Features
from nnkit.training.fingerprint import fingerprint

SMALL = PictureSettings(12, 10)
OPTIONS = PictureOptions(SMALL)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep decoded pictures in a folder of the test's own."""
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


def picture(height: int = 30, width: int = 44, seed: int = 0) -> Image.Image:
    """Return smooth colours with a corner that tells every turn from every other."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + seed), np.cos(y / 4 + seed), np.sin((x + 2 * y) / 7)]
    pixels = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    pixels[: height // 3, : width // 4] = (250, 10, 120)
    return Image.fromarray(pixels)


def saved(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture() if image is None else image).save(path, **options)
    return path


def folder_of(path: Path, cats: int = 4, dogs: int = 3, suffix: str = ".png") -> Path:
    for label, count in (("cats", cats), ("dogs", dogs)):
        for number in range(count):
            saved(path / label / f"{number}{suffix}", picture(seed=number + 10 * (label == "dogs")))
    return path


def channels_first(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(np.int64)


# --- one picture ---


def test_a_picture_is_all_red_then_all_green_then_all_blue_row_by_row(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    path = saved(tmp_path / "a" / "p.png", Image.fromarray(pixels))
    row = decode_pictures([path], PictureSettings(2, 3)).pixels[0]
    expected = [pixels[y, x, c] for c in range(3) for y in range(2) for x in range(3)]
    assert row.tolist() == expected
    np.testing.assert_array_equal(row.reshape(3, 2, 3).transpose(1, 2, 0), pixels)


@pytest.mark.parametrize("size", [(12, 10), (40, 7), (64, 90)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_is_cropped_padded_or_stretched_as_pillow_does(
    tmp_path: Path, fit: str, size: tuple[int, int]
) -> None:
    image, (height, width) = picture(), size
    made = {"crop": ImageOps.fit, "pad": ImageOps.pad, "stretch": Image.Image.resize}[fit]
    expected = channels_first(made(image, (width, height), Image.Resampling.BILINEAR))
    found = decode_file(saved(tmp_path / "p.png", image), PictureSettings(height, width, 3, fit))
    assert found.shape == (3, height, width)
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_honoured(tmp_path: Path, orientation: int, fit: str, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {"quality": 100, "subsampling": 0}
    path = saved(tmp_path / f"p.{kind}", picture(), exif=exif, **options)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    settings = PictureSettings(12, 10, 3, fit)
    expected = decode_file(saved(tmp_path / "upright.png", upright, exif=Image.Exif()), settings)
    np.testing.assert_allclose(decode_file(path, settings).astype(int), expected, atol=3)
    if orientation == 6:
        assert upright.size == (30, 44)


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    alpha = pixels[..., 3:] / 255
    return (pixels[..., :3] * alpha + 255 * (1 - alpha)).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 8, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    if mode == "RGB":  # one colour is the transparent one
        image = image.convert("RGB")
        path = saved(tmp_path / "p.png", image, transparency=image.getpixel((2, 3)))
    else:
        path = saved(tmp_path / "p.png", image if mode == "RGBA" else image.convert(mode))
    with Image.open(path) as stored:
        expected = on_white(np.asarray(stored.convert("RGBA")))
    found = decode_file(path, PictureSettings(9, 8))
    np.testing.assert_allclose(found, expected, atol=1.01)
    if mode == "RGB":
        assert found[:, 3, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_of_16_bits_the_upper_eight_of_the_depth_are_taken(tmp_path: Path, depth: int, name: str) -> None:
    values = np.random.default_rng(2).integers(0, 2**depth, (9, 8)).astype(np.uint16)
    path = saved(tmp_path / name, Image.fromarray(values))
    found = decode_file(path, PictureSettings(9, 8, 1, depth=depth))
    np.testing.assert_array_equal(found[0], values // 2 ** (depth - 8))
    if depth > 8:  # what is brighter than that is white
        found = decode_file(path, PictureSettings(9, 8, 1, depth=8))
        np.testing.assert_array_equal(found[0], np.minimum(values, 255))


def deep(path: Path, most: int, seed: int = 0) -> Path:
    """Write a picture with 16 bits a pixel whose greatest value is this."""
    values = np.random.default_rng(seed).integers(0, most, (9, 8)).astype(np.uint16)
    values[4, 4] = most
    return saved(path, Image.fromarray(values))


@pytest.mark.parametrize(
    ("most", "depth"),
    [(200, 8), (255, 8), (256, 10), (1023, 10), (3000, 12), (9000, 14), (20_000, 16), (65_535, 16)],
)
def test_pictures_of_16_bits_are_scaled_by_the_range_of_the_training_set(
    tmp_path: Path, most: int, depth: int
) -> None:
    options = PictureOptions(PictureSettings(9, 8, 1))
    for part, label, value in (("train", "a", most), ("train", "b", most // 2), ("test", "a", 65_535)):
        deep(tmp_path / "set" / part / label / "1.png", value)
    saved(tmp_path / "set" / "train" / "b" / "2.png", picture().convert("L"))  # of 8 bits
    for origin in ("decoded in", "read from the cache"):
        dataset = load_dataset(tmp_path / "set", pictures=options)
        assert dataset.test is not None
        train, test = dataset.train.features, dataset.test.features
        assert isinstance(train, Pictures)
        assert isinstance(test, Pictures)
        assert train.settings.depth == test.settings.depth == depth
        assert origin in train.origin
        assert f"values up to {most:,}: 0 to {2**depth - 1:,} become 0 to 255" in dataset.notes[0]
        assert int(train.pixels[0].max()) == most // 2 ** (depth - 8)
        assert int(train.pixels[1].max()) == most // 2 // 2 ** (depth - 8)
        assert int(train.pixels[2].max()) > 200
        assert int(test.pixels.max()) == 255

    # The model keeps the range, and what it is given later is scaled alike.
    preprocessor = Preprocessor.from_json(Preprocessor.fit(train).to_json())
    assert preprocessor.pictures == train.settings
    later = deep(tmp_path / "later" / "1.png", most // 3)
    expected = np.asarray(Image.open(later)).astype(int) // 2 ** (depth - 8)
    np.testing.assert_array_equal(preprocessor.transform(later).dense, expected.reshape(1, -1))
    with Image.open(later) as image:
        np.testing.assert_array_equal(preprocessor.transform(image).dense, expected.reshape(1, -1))
    known = PictureOptions(train.settings, expected=True)
    for require in (True, False):
        source = tmp_path / "set" / "train" if require else later
        features = load_dataset(source, require_target=require, pictures=known).train.features
        assert preprocessor.transform(features).dense.max() <= 255
    second = load_dataset(tmp_path / "set/train", test=tmp_path / "set/test", pictures=options)
    assert second.test is not None
    assert second.test.features.settings == train.settings  # type: ignore[union-attr]


def test_pictures_of_floating_point_numbers_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.tif", Image.fromarray(np.random.default_rng(0).random((9, 8), np.float32)))
    with pytest.raises(DataError, match="floating-point"):
        decode_file(path, SMALL)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("1", "p.bmp"), ("L", "p.jpg"), ("CMYK", "p.jpg"), ("P", "p.gif"), ("P", "p.bmp"), ("RGB", "p.webp")]
    + [
        (mode, f"p.{suffix}")
        for mode in ("1", "L", "CMYK", "P", "RGB")  # Pillow 10.1 cannot read the YCbCr that it writes
        for suffix in ("tif", "TIFF")
    ],
)
def test_every_mode_becomes_colours_or_grey(tmp_path: Path, mode: str, name: str) -> None:
    path = saved(tmp_path / name, picture().convert(mode))
    with Image.open(path) as stored:
        colours = stored.convert("RGB")
    colour = decode_file(path, PictureSettings(30, 44))
    np.testing.assert_array_equal(colour, channels_first(colours))
    grey = decode_file(path, PictureSettings(30, 44, 1))
    np.testing.assert_allclose(grey[0], np.asarray(colours.convert("L")), atol=1)


@pytest.mark.parametrize("name", ["p.gif", "p.tif"])
def test_of_several_frames_or_pages_the_first_is_taken(tmp_path: Path, name: str) -> None:
    frames = [picture(seed=seed) for seed in (0, 5)]
    path = saved(tmp_path / name, frames[0].convert("P"), save_all=True, append_images=[frames[1]])
    expected = channels_first(frames[0].convert("P"))
    np.testing.assert_array_equal(decode_file(path, PictureSettings(30, 44)), expected)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.jpg", picture().resize((1400, 1000)), quality=95)
    with Image.open(path) as stored:
        expected = channels_first(ImageOps.fit(stored, (60, 60), Image.Resampling.BILINEAR))
    found = decode_file(path, PictureSettings(60, 60))
    assert np.abs(found - expected).mean() < 1.5


# --- what is no picture ---


def bomb(path: Path) -> Path:
    """Write a PNG that claims 10 billion pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    return path


def spoilt(path: Path, how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "bomb":
        return bomb(path)
    data = saved(path.with_name("whole.png"), picture(200, 300)).read_bytes()
    path.with_name("whole.png").unlink()
    contents = {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "text": b"what? a text",
        "header": data[:30],
    }
    path.write_bytes(contents[how])
    return path


WAYS = {
    "truncated": "cannot be decoded",
    "empty": "the file is empty",
    "text": "no PNG, JPEG, WebP, BMP, GIF or TIFF",
    "header": "cannot be|no PNG",
    "bomb": "pixels",
}


@pytest.mark.parametrize("how", WAYS)
def test_a_bad_picture_is_named_or_skipped(tmp_path: Path, how: str) -> None:
    folder = folder_of(tmp_path / "pets")
    path = spoilt(folder / "cats" / "00.png", how)
    with pytest.raises(DataError, match=WAYS[how]) as caught:
        load_dataset(folder, pictures=OPTIONS)
    assert str(caught.value).startswith(str(path))
    assert "on_bad" in str(caught.value)
    assert str(caught.value).count("\n") <= 1
    for _ in range(2):  # decoded, then from the cache
        dataset = load_dataset(folder, pictures=PictureOptions(SMALL, "skip"))
        assert len(dataset.train) == 7
        assert dataset.train.target is not None
        assert dataset.train.target.tolist() == ["cats"] * 4 + ["dogs"] * 3
        assert f"skipped 1 of 8 files that cannot be read as pictures, first {path}" in dataset.notes[0]
        assert isinstance(dataset.train.features, Pictures)
        assert str(path) not in dataset.train.features.names
    with pytest.raises(DataError, match=WAYS[how]):
        load_dataset(folder, pictures=OPTIONS)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_decoding, "_MOST_PIXELS", 30 * 44 - 1)
    with pytest.raises(DataError, match="44 × 30 pixels"):
        decode_file(saved(tmp_path / "p.png"), SMALL)


def test_no_picture_at_all_is_an_error_even_where_bad_ones_are_skipped(tmp_path: Path) -> None:
    paths = [spoilt(tmp_path / f"{n}.png", "text") for n in range(3)]
    with pytest.raises(DataError, match="none of the 3 pictures"):
        decode_pictures(paths, SMALL, skip=True)
    assert not list((tmp_path / "cache").rglob("*.npy"))


# --- the cache ---


def test_a_second_run_reads_the_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "pets")
    first = load_dataset(folder, pictures=OPTIONS).train.features
    assert isinstance(first, Pictures)
    assert "decoded in" in first.origin
    monkeypatch.setattr(picture_decoding, "decode_file", None)
    second = load_dataset(folder, pictures=OPTIONS).train.features
    assert isinstance(second, Pictures)
    assert "read from the cache" in second.origin
    assert isinstance(second.pixels, np.memmap)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_another_file_or_setting_is_decoded_anew(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    load_dataset(folder, pictures=OPTIONS)
    changed = saved(folder / "cats" / "1.png", picture(seed=7))
    dataset = load_dataset(folder, pictures=OPTIONS).train.features
    assert isinstance(dataset, Pictures)
    np.testing.assert_array_equal(dataset.pixels[1], decode_file(changed, SMALL).reshape(-1))
    touched = changed.stat().st_mtime_ns + 10**9
    os.utime(changed, ns=(touched, touched))
    load_dataset(folder, pictures=OPTIONS)
    load_dataset(folder, pictures=PictureOptions(PictureSettings(12, 10, 1)))
    load_dataset(folder, pictures=PictureOptions(PictureSettings(12, 10, 3, "pad")))
    assert len(list(cache.glob("*.npy"))) == 5


@pytest.mark.parametrize("damage", ["array", "header", "list", "no list"])
def test_a_damaged_cache_is_decoded_anew(tmp_path: Path, cache: Path, damage: str) -> None:
    folder = folder_of(tmp_path / "pets")
    first = np.array(load_dataset(folder, pictures=OPTIONS).train.features.pixels)  # type: ignore[union-attr]
    array, listed = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    if damage == "array":
        array.write_bytes(array.read_bytes()[:-5])
    elif damage == "header":
        array.write_bytes(b"\x93NUMPX" + array.read_bytes()[6:])
    elif damage == "list":
        listed.write_text('{"bad": [1]}')
    else:
        listed.unlink()
    again = load_dataset(folder, pictures=OPTIONS).train.features
    assert isinstance(again, Pictures)
    assert "decoded in" in again.origin
    np.testing.assert_array_equal(again.pixels, first)


def test_a_name_that_is_not_unicode_is_read_and_can_be_printed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    odd = os.fsdecode(os.fsencode(str(folder / "cats" / "x")) + b"\xff.png")
    saved(folder / "cats" / "0.png").rename(odd)
    pictures = load_dataset(folder, pictures=OPTIONS).train.features
    assert isinstance(pictures, Pictures)
    assert pictures.names[3].encode() == str(folder / "cats" / "x?.png").encode()
    Path(odd).write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        load_dataset(folder, pictures=OPTIONS)
    assert str(caught.value).encode()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(DataError, match="no such file"):
        decode_pictures([tmp_path / "p.png"], SMALL, keep=False)


def test_two_at_once_get_the_same_pictures(tmp_path: Path, cache: Path) -> None:
    paths = sorted(folder_of(tmp_path / "pets", 40, 40).rglob("*.png"))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: np.array(decode_pictures(paths, SMALL).pixels), range(3)))
    expected = np.stack([decode_file(path, SMALL).reshape(-1) for path in paths])
    for pixels in found:
        np.testing.assert_array_equal(pixels, expected)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_what_was_used_least_recently_makes_way(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(folder_of(tmp_path / "pets").rglob("*.png"))
    sizes = [PictureSettings(side, side) for side in (8, 9, 10)]
    for age, settings in enumerate(sizes[:2]):
        decode_pictures(paths, settings)
        newest = max(cache.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, ns=(age * 10**9, age * 10**9))
    decode_pictures(paths, sizes[0])  # used again
    monkeypatch.setattr(picture_cache, "_MOST_KEPT", 7 * (192 + 300) + 400)
    decode_pictures(paths, sizes[2])
    shapes = sorted(np.load(path).shape[1] for path in cache.glob("*.npy"))
    assert shapes == [192, 300]
    assert len(list(cache.glob("*.json"))) == 2


def test_a_cache_without_room_is_said_with_the_way_out(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "pets")
    cache.parent.mkdir()
    cache.write_text("in the way")
    with pytest.raises(FileError, match=r"\.npy: cannot be written: .*set NNKIT_CACHE to a folder with"):
        load_dataset(tmp_path / "pets", pictures=OPTIONS)


def test_a_prediction_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    assert len(load_dataset(folder, require_target=False, pictures=OPTIONS).train) == 7
    assert not cache.exists()


# --- sources ---


def test_folders_are_classes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    saved(folder / "dogs" / "more" / "deep.JPG")
    (folder / "dogs" / ".DS_Store").write_bytes(b"x")
    (folder / "LICENSE").write_text("of the pictures")
    dataset = load_dataset(folder, pictures=OPTIONS)
    assert dataset.name == "pets"
    assert dataset.target_names == ("class",)
    assert dataset.image_shape == (3, 12, 10)
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == ["cats"] * 4 + ["dogs"] * 4
    assert isinstance(dataset.train.features, Pictures)
    assert dataset.train.features.names[-1] == str(folder / "dogs" / "more" / "deep.JPG")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_paths_and_labels(tmp_path: Path, kind: str) -> None:
    folder_of(tmp_path / "pets")
    paths = ["pets/dogs/0.png", "pets/cats/1.png", str(tmp_path / "pets/cats/2.png")]
    table = pa.table({"file": paths, "size": [1, 2, 3], "label": ["dog", "cat", "cat"]})
    path = tmp_path / f"pets.{kind}"
    if kind == "csv":
        rows = zip(*table.to_pydict().values(), strict=True)
        path.write_text("file,size,label\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows))
    else:
        pq.write_table(table, path)
    dataset = load_dataset(path, pictures=OPTIONS)
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == ["dog", "cat", "cat"]
    assert isinstance(dataset.train.features, Pictures)
    expected = [decode_file(tmp_path / name, SMALL).reshape(-1) for name in paths]
    np.testing.assert_array_equal(dataset.train.features.pixels, expected)
    assert "'size'" in dataset.notes[0]
    named = load_dataset(path, target="size", pictures=PictureOptions(SMALL, column="file"))
    assert named.train.target is not None
    assert named.train.target.tolist() == [1, 2, 3]


WRITTEN: dict[str, Callable[[Path], str]] = {
    "relative to the table": lambda path: f"img/{path.name}",
    "with a leading dot": lambda path: f"./img/{path.name}",
    "absolute": str,
    "as an address of a file": lambda path: path.as_uri(),
    "as a short address of a file": lambda path: f"file:{path}",
    "with the separators of Windows": lambda path: f".\\img\\{path.name}",
    "relative to the working directory": lambda path: f"tables/img/{path.name}",
    "with spaces around": lambda path: f" img/{path.name} ",
    "from the home folder": lambda path: f"~/tables/img/{path.name}",
}


def images_beside_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Write pictures into a folder beside that of a table, and work in the folder above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [f"tables/img/{number} b.{suffix}" for number, suffix in enumerate(("png", "JPG", "tif", "png"))]
    return [saved(tmp_path / name, picture(seed=number)) for number, name in enumerate(names)]


@pytest.mark.parametrize("how", WRITTEN)
def test_paths_of_a_table_are_found_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    paths = images_beside_a_table(tmp_path, monkeypatch)
    table = tmp_path / "tables" / "t.csv"
    rows = [f"{WRITTEN[how](path)},{'ab'[place % 2]}" for place, path in enumerate(paths)]
    table.write_text("file,label\n" + "\n".join(rows) + "\n")
    listed = tmp_path / "tables" / "t.txt"
    listed.write_text("\n".join(WRITTEN[how](path) for path in paths))
    for source, target in ((table, True), (table, False), (Path("tables/t.csv"), True), (listed, False)):
        features = load_dataset(
            source, target="label", require_target=target, pictures=OPTIONS
        ).train.features
        assert isinstance(features, Pictures)
        assert [os.path.abspath(name) for name in features.names] == [str(path) for path in paths]


def test_the_table_comes_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = images_beside_a_table(tmp_path, monkeypatch)
    saved(tmp_path / "img" / paths[0].name)
    table = tmp_path / "tables" / "t.csv"
    table.write_text(f"file,label\nimg/{paths[0].name},a\nimg/{paths[1].name},b\n")
    features = load_dataset(table, pictures=OPTIONS).train.features
    assert isinstance(features, Pictures)
    assert features.names == [str(path) for path in paths[:2]]


@pytest.mark.parametrize("require_target", [True, False])
def test_paths_of_which_none_is_there_are_never_learnt_as_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_target: bool
) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    table = tmp_path / "tables" / "t.csv"
    table.write_text("file,width,label\n" + "".join(f"img/{n}.png,{n},{n % 2}\n" for n in range(40)))

    def told(**options: Any) -> str:
        with pytest.raises(DataError) as caught:
            load_dataset(table, target="label", require_target=require_target, **options)
        assert str(caught.value).count("\n") == 1
        return str(caught.value)

    text = told()
    assert "column 'file' looks like paths of pictures (img/0.png, ...)" in text
    assert f"relative to {tmp_path / 'tables'} or {tmp_path / 'work'}\n" in text
    assert "`drop`" in text
    assert told(pictures=PictureOptions(column="file")).startswith(text.partition("(")[0])
    # Where the column is not learnt from, or the model is not one of pictures, there is nothing to say.
    for options in (
        {"drop": ["file"]},
        {"drop": [0]},
        {"features": ["width"]},
        {"pictures": PictureOptions(expected=False)},
    ):
        dataset = load_dataset(table, target="label", require_target=require_target, **options)  # type: ignore[arg-type]
        assert isinstance(dataset.train.features, pa.Table)
    saved(tmp_path / "tables" / "img" / "30.png")
    with pytest.raises(DataError, match=r"img/0\.png \(and 38 more\): there is no such picture"):
        load_dataset(table, target="label", require_target=require_target)
    dataset = load_dataset(table, target="label", drop=["file"], require_target=require_target)
    assert isinstance(dataset.train.features, pa.Table)


def test_web_addresses_of_pictures_are_to_be_downloaded(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    for address in ("https://example.org/a/{}.png", "HTTP://example.org/{}.jpg?size=3", "s3://bucket/{}.tif"):
        table.write_text("file,label\n" + "".join(f"{address.format(n)},{n % 2}\n" for n in range(40)))
        with pytest.raises(DataError, match=r"column 'file' holds web addresses .*\nDownload them first"):
            load_dataset(table, pictures=OPTIONS)


def test_names_without_a_suffix_are_pictures_where_that_is_said(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{name}.{kind}") for name, kind in (("7", "png"), ("8", "jpg"), ("9", "tif"))]
    table = tmp_path / "t.csv"
    table.write_text("id,label\n7,a\n8,b\n9,a\n")
    assert isinstance(load_dataset(table, pictures=OPTIONS).train.features, pa.Table)
    for options in (PictureOptions(SMALL, column="id"), PictureOptions(SMALL, expected=True)):
        for require_target in (True, False):
            features = load_dataset(table, require_target=require_target, pictures=options).train.features
            assert isinstance(features, Pictures)
            assert features.names == [str(path) for path in paths]
    table.write_text("id,label\n70,a\n80,b\n")
    with pytest.raises(DataError, match=r"column 'id' looks like paths .*and none is there"):
        load_dataset(table, pictures=PictureOptions(SMALL, column="id"))
    with pytest.raises(DataError, match="trained on pictures, and no column holds their paths"):
        load_dataset(table, require_target=False, pictures=PictureOptions(SMALL, expected=True))


def test_a_path_of_a_table_that_is_not_there_is_named_or_skipped(tmp_path: Path) -> None:
    folder_of(tmp_path / "pets")
    path = tmp_path / "list.csv"
    path.write_text("path,label\npets/cats/0.png,a\npets/no.png,b\npets/dogs/0.png,b\n")
    with pytest.raises(DataError, match=r"pets/no\.png: there is no such picture"):
        load_dataset(path, pictures=OPTIONS)
    dataset = load_dataset(path, pictures=PictureOptions(SMALL, "skip"))
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == ["a", "b"]
    assert "there is no such file" in dataset.notes[0]


def test_a_path_of_thousands_of_characters_is_shortened_in_the_message(tmp_path: Path) -> None:
    folder_of(tmp_path / "pets")
    path = tmp_path / "list.txt"
    path.write_text(f"pets/cats/0.png\n{'a/' * 1500}no.png\n")
    with pytest.raises(DataError, match=r"….*a/no\.png: there is no such picture") as caught:
        load_dataset(path, require_target=False, pictures=OPTIONS)
    assert len(str(caught.value)) < 1000


def test_pictures_to_predict(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets", 2, 1)
    listed = tmp_path / "pets.txt"
    listed.write_text("pets/dogs/0.png\n\npets/cats/1.png\n")
    table = tmp_path / "pets.csv"
    table.write_text("path,label\npets/dogs/0.png,\npets/cats/1.png,\n")
    one = folder / "dogs" / "0.png"
    for source, names in (
        (one, [one]),
        ([one, folder / "cats" / "0.png"], [one, folder / "cats" / "0.png"]),
        (folder, sorted(folder.rglob("*.png"))),
        (folder / "cats", sorted((folder / "cats").iterdir())),
        (listed, [one, folder / "cats" / "1.png"]),
        (table, [one, folder / "cats" / "1.png"]),
    ):
        pictures = load_dataset(source, target="label", require_target=False, pictures=OPTIONS).train.features
        assert isinstance(pictures, Pictures)
        assert pictures.names == [str(name) for name in names]
        expected = [decode_file(name, SMALL).reshape(-1) for name in names]
        np.testing.assert_array_equal(pictures.pixels, expected)


def test_wrong_sources_are_told(tmp_path: Path) -> None:
    def told(source: Path, **options: Any) -> str:
        with pytest.raises(DataError) as caught:
            load_dataset(source, pictures=OPTIONS, **options)
        message = str(caught.value)
        assert message.count("\n") <= 1
        return message

    flat = tmp_path / "flat"
    one = saved(flat / "a.png")
    assert "no classes" in told(flat)
    assert "no class to learn" in told(one)
    mixed = folder_of(tmp_path / "mixed")
    saved(mixed / "stray.png")
    assert "stray.png: is beside the subfolders" in told(mixed)
    (mixed / "stray.png").unlink()
    (mixed / "dogs" / "notes.txt").write_text("good dogs")
    assert "notes.txt: no picture" in told(mixed)
    (mixed / "dogs" / "notes.txt").unlink()
    (mixed / "birds").mkdir()
    assert "the class 'birds' has no pictures" in told(mixed)
    assert "leave out `target`" in told(folder_of(tmp_path / "pets"), target="animal")
    twice = tmp_path / "twice.csv"
    twice.write_text("a,b,label\npets/cats/0.png,pets/cats/0.png,x\npets/dogs/0.png,pets/dogs/0.png,y\n")
    assert "image_column" in told(twice)
    odd = tmp_path / "odd.txt"
    odd.write_text("pets/cats/0.png\nnot a picture\n")
    assert "line 2: not a picture" in told(odd, require_target=False)


# --- what becomes of them ---


def test_channels_are_standardised_by_the_training_rows_alone(tmp_path: Path) -> None:
    pictures = load_dataset(folder_of(tmp_path / "pets", 9, 9), pictures=OPTIONS).train.features
    assert isinstance(pictures, Pictures)
    rows = np.array([0, 3, 4, 11, 17])
    planes = pictures.pixels[rows].reshape(5, 3, -1).astype(np.float64)
    for scaling in ("auto", "standardize"):
        operation = Preprocessor.fit(pictures, rows=rows, scaling=scaling).operations[0]
        np.testing.assert_allclose(operation.shift, planes.mean(axis=(0, 2)), rtol=1e-12)  # type: ignore[union-attr]
        np.testing.assert_allclose(operation.scale, 1 / planes.std(axis=(0, 2)), rtol=1e-12)  # type: ignore[union-attr]
    features = Preprocessor.fit(pictures, scaling="unit").transform(pictures)
    assert features.shift is None
    np.testing.assert_array_equal(features.scale, np.full(360, 1 / 255))
    features = Preprocessor.fit(pictures).transform(pictures)
    assert features.dense.dtype == np.uint8
    assert features.picture == (3, 12, 10)


def test_a_channel_that_is_constant_stays_at_0() -> None:
    pixels = np.zeros((4, 3 * 4), np.uint8)
    pixels[:, 4:] = np.random.default_rng(0).integers(0, 256, (4, 8))
    pictures = Pictures(pixels, PictureSettings(2, 2), np.arange(4))
    assert Preprocessor.fit(pictures).operations[0].scale[0] == 0  # type: ignore[union-attr, index]


def test_neither_statistics_nor_rows_nor_fingerprint_copy_the_pictures() -> None:
    settings = PictureSettings(64, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (2_000, settings.count), np.uint8)
    pictures = Pictures(pixels, settings, np.arange(2_000))
    training, held = np.arange(0, 1_800), np.arange(1_800, 2_000)
    tracemalloc.start()
    preprocessor = Preprocessor.fit(pictures, rows=training)
    features = preprocessor.transform(pictures, training)
    validation = preprocessor.transform(pictures.take(held))
    digest = fingerprint(features, np.zeros(1_800), None, "training")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.nbytes / 4
    assert np.shares_memory(features.dense, pixels)
    assert np.shares_memory(validation.dense, pixels)
    copied = Features(pixels[training], features.shift, features.scale)
    assert digest == fingerprint(copied, np.zeros(1_800), None, "training")


def test_the_operation_survives_the_model_file(tmp_path: Path) -> None:
    pictures = load_dataset(folder_of(tmp_path / "pets"), pictures=OPTIONS).train.features
    preprocessor = Preprocessor.fit(pictures)
    again = Preprocessor.from_json(preprocessor.to_json())
    assert again.operations == preprocessor.operations
    assert again.pictures == SMALL
    assert again.width == 360
    assert len(again.output_names) == 360
    assert again.output_names[120] == "green 0,0"


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"height": 5000},
        {"width": 2.0},
        {"channels": 2},
        {"channels": 4},
        {"fit": "cut"},
        {"depth": 7},
        {"depth": 17},
        {"depth": "16"},
        {"shift": [0.0]},
        {"scale": [1.0, 2.0, float("inf")]},
        {"scale": "1"},
    ],
)
def test_a_damaged_operation_is_refused(change: dict[str, Any]) -> None:
    good = {
        "operation": "picture",
        "height": 4,
        "width": 4,
        "channels": 3,
        "fit": "crop",
        "shift": [0.0] * 3,
        "scale": [1.0] * 3,
    }
    whole = {"dtype": "float32", "notes": [], "operations": [good]}
    assert Preprocessor.from_json(whole).width == 48
    assert Preprocessor.from_json(whole).pictures == PictureSettings(4, 4, depth=16)  # as older files say
    with pytest.raises(ModelFileError):
        Preprocessor.from_json({**whole, "operations": [{**good, **change}]})
    with pytest.raises(ModelFileError):
        Preprocessor.from_json({**whole, "operations": [good, good]})


def test_a_program_gives_paths_images_or_arrays(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    preprocessor = Preprocessor.fit(load_dataset(folder, pictures=OPTIONS).train.features)
    path = folder / "cats" / "1.png"
    expected = preprocessor.transform([path, path]).dense
    np.testing.assert_array_equal(expected[0], decode_file(path, SMALL).reshape(-1))
    with Image.open(path) as opened:
        image = opened.copy()
    for given in (
        [image, image],
        [str(path), path],
        (item for item in (path, path)),
        np.stack([np.asarray(image)] * 2),
        np.array([str(path)] * 2, dtype=object),
        expected,
    ):
        np.testing.assert_array_equal(preprocessor.transform(given).dense, expected)
    np.testing.assert_array_equal(preprocessor.transform(path).dense, expected[:1])
    np.testing.assert_array_equal(preprocessor.transform(image).dense, expected[:1])
    grey = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(
        preprocessor.transform(grey[None]).dense, preprocessor.transform(grey[None, ..., None]).dense
    )
    for wrong in (
        [],
        5,
        [path, 3],
        pa.table({"a": [1]}),
        np.zeros((2, 5, 5)),
        np.zeros((2, 5), np.uint8),
        np.zeros((2, 5, 5, 2), np.uint8),
        np.zeros((0, 5, 5), np.uint8),
        tmp_path / "no.png",
    ):
        with pytest.raises(DataError):
            preprocessor.transform(wrong)
    with pytest.raises(DataError, match="not trained on pictures"):
        Preprocessor.fit(np.zeros((3, 2)) + np.arange(3)[:, None]).transform(
            load_dataset(folder, pictures=OPTIONS).train.features
        )
    other = load_dataset(folder, pictures=PictureOptions(PictureSettings(5, 5))).train.features
    with pytest.raises(DataError, match="12 × 10 in colour, cropped"):
        preprocessor.transform(other)


@pytest.mark.parametrize(
    "given", [{"height": 0}, {"width": 5000}, {"channels": 2}, {"fit": "squeeze"}, {"depth": 7}]
)
def test_settings_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PictureSettings(**given)


def test_warnings_of_pillows_do_not_reach_the_user(tmp_path: Path) -> None:
    image = picture().convert("P")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes(range(200)))
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    decode_pictures([tmp_path / "p.png"], SMALL, keep=False)
