"""``python -m fsparse``: see :mod:`fsparse.cli`."""

from fsparse.cli import main

if __name__ == "__main__":
    main()
