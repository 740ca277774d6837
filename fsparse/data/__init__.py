"""Examples: sparse rows, hashed text, files, batches and real data sets."""

from fsparse.data.batches import (
    Batch,
    batches,
    num_batches,
    prefetch,
    stream_batches,
)
from fsparse.data.clicks import Clicks, load_clicks, stream_clicks
from fsparse.data.datasets import Texts, WordNet, load, wordnet_texts
from fsparse.data.dense_datasets import DenseDataset, DenseSplits, load_dense
from fsparse.data.features import hash_char_ngrams, hash_words, join_columns
from fsparse.data.halves import halve
from fsparse.data.rows import (
    Clipped,
    Dataset,
    SparseRows,
    Splits,
    clip,
    column_counts,
    concatenate,
    from_lists,
    inverse_document_frequency,
    normalize,
    scale_columns,
    take,
    tfidf,
    to_padded,
)
from fsparse.data.xc import (
    Report,
    XcHeader,
    load_xc,
    read_xc_header,
    stream_xc,
    write_xc,
)

__all__ = [
    "Batch",
    "Clicks",
    "Clipped",
    "Dataset",
    "DenseDataset",
    "DenseSplits",
    "Report",
    "SparseRows",
    "Splits",
    "Texts",
    "WordNet",
    "XcHeader",
    "batches",
    "clip",
    "column_counts",
    "concatenate",
    "from_lists",
    "halve",
    "hash_char_ngrams",
    "hash_words",
    "inverse_document_frequency",
    "join_columns",
    "load",
    "load_clicks",
    "load_dense",
    "load_xc",
    "normalize",
    "num_batches",
    "prefetch",
    "read_xc_header",
    "scale_columns",
    "stream_batches",
    "stream_clicks",
    "stream_xc",
    "take",
    "tfidf",
    "to_padded",
    "wordnet_texts",
    "write_xc",
]
