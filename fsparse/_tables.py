"""A table for the eye: by rich where it is installed, else in plain text."""

from collections.abc import Sequence

Row = Sequence[str]


def print_table(names: Row, rows: Sequence[Row]) -> None:
    """Columns and rows, on stdout."""
    try:
        import rich.console
        import rich.table
    except ImportError:
        print(plain(names, rows))
        return
    table = rich.table.Table(*names)
    for row in rows:
        table.add_row(*row)
    rich.console.Console().print(table)


def plain(names: Row, rows: Sequence[Row]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in [names, *rows])


def _line(row: Row, widths: list[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(x.rjust(width) for x, width in rest)]
    return "  ".join(cells).rstrip()
