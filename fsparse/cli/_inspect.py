"""Shows a model, or the schema that would be inferred from a file.

Examples:
  fsparse inspect model.fsparse
  fsparse inspect model.fsparse --explain '{"title": "blue mug", "price": 3}'
  fsparse inspect train.csv --target label > schema.json
"""

import argparse
import json

from fsparse.cli._reading import add_reading, reader_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A file, and what to show of it."""
    add = parser.add_argument
    add("file", help="a model, or a table if there is a --target")
    add("--target", help="column of the labels of a table")
    add_reading(parser)
    add("--explain", metavar="JSON", help="a row: which columns speak for its label")


def run(arguments: argparse.Namespace) -> None:
    """Text for people; a schema as JSON, to be edited and given to `train`."""
    from fsparse.pipeline import Pipeline
    from fsparse.tabular import infer_schema

    if arguments.target:
        reader = reader_of(arguments, arguments.file)
        print(infer_schema(reader, arguments.target).to_json(), end="")
        return
    pipeline = Pipeline.load(arguments.file)
    if not arguments.explain:
        print(pipeline.summary())
        return
    row = json.loads(arguments.explain)
    ((best,),) = pipeline.predict([row])
    print(f"{best.label}: {best.score:.4f}")
    for column, value, weight in pipeline.explain(row):
        print(f"  {weight:+.4f}  {column} = {value!r}")
