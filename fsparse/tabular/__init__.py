"""Tables: columns of many kinds to hashed features, fitted on data, saved as JSON."""

from fsparse.tabular._columns import (
    categorical,
    cross,
    multi_label,
    numerical,
    text,
    timestamp,
)
from fsparse.tabular._csv import CsvReader, read_csv
from fsparse.tabular._fitted import FittedSchema
from fsparse.tabular._history import history
from fsparse.tabular._infer import infer_schema
from fsparse.tabular._parquet import ParquetReader, read_parquet
from fsparse.tabular._read import Source, read
from fsparse.tabular._report import Report
from fsparse.tabular._rows import Rows, Table
from fsparse.tabular._schema import Schema
from fsparse.tabular._targets import binary, integer

__all__ = [
    "CsvReader",
    "FittedSchema",
    "ParquetReader",
    "Report",
    "Rows",
    "Schema",
    "Source",
    "Table",
    "binary",
    "categorical",
    "cross",
    "history",
    "infer_schema",
    "integer",
    "multi_label",
    "numerical",
    "read",
    "read_csv",
    "read_parquet",
    "text",
    "timestamp",
]
