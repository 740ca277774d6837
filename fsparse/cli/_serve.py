r"""Answers requests over HTTP; needs the extra `serve`.

Example:
  fsparse serve model.fsparse --port 8000 &
  curl localhost:8000/predict -H 'content-type: application/json' \
    -d '{"examples": [{"title": "blue mug"}], "k": 3}'
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from fsparse.cli._arguments import port, positive_float, positive_int
from fsparse.cli._search import add_search, with_search
from fsparse.serve import Limits
from fsparse.serve._listen import require_free


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, address, and an option for each limit."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` or `fsparse export` wrote")
    add("--host", default="127.0.0.1", help="0.0.0.0 listens on all interfaces")
    add("--port", type=port, default=8000, help="0 takes a free one")
    add("--k", type=positive_int, default=10, help="the most predictions of a row")
    add("--threads", type=positive_int, default=1, help="that compute predictions")
    add_search(parser)
    limits = parser.add_argument_group("limits")
    for field in fields(Limits):
        kind = positive_int if field.type is int else positive_float
        option = f"--{field.name.replace('_', '-')}"
        limits.add_argument(option, type=kind, default=field.default, metavar="N")


def run(arguments: argparse.Namespace) -> None:
    """Compiles for all sizes of batches first, so that no client waits for that."""
    from fsparse.cli._models import load, max_k
    from fsparse.pipeline import TablePredictor
    from fsparse.serve import serve

    require_free(arguments.host, arguments.port)
    os.environ["PJRT_NPROC"] = str(arguments.threads)  # read when XLA is first used
    model = with_search(load(arguments.model), arguments, arguments.k)
    limits = Limits(**{f.name: getattr(arguments, f.name) for f in fields(Limits)})
    predictor = TablePredictor(
        model,
        arguments.model.name,
        max_batch=limits.max_batch,
        k=min(arguments.k, max_k(model)),
    )
    serve(predictor, host=arguments.host, port=arguments.port, limits=limits)
