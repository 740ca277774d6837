"""Tables: columns of many kinds to hashed features, fitted on data, saved as JSON."""

from fsparse.tabular._columns import (
    categorical,
    cross,
    multi_label,
    numerical,
    text,
    timestamp,
)
from fsparse.tabular._fitted import FittedSchema
from fsparse.tabular._history import history
from fsparse.tabular._report import Report
from fsparse.tabular._rows import Rows
from fsparse.tabular._schema import Schema
from fsparse.tabular._targets import binary, integer

__all__ = [
    "FittedSchema",
    "Report",
    "Rows",
    "Schema",
    "binary",
    "categorical",
    "cross",
    "history",
    "integer",
    "multi_label",
    "numerical",
    "text",
    "timestamp",
]
