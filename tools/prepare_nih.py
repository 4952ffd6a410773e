"""The same as `python -m tools.prepare_data nih`, under the name that it had when NIH's was the only source."""

import sys
from collections.abc import Sequence

from tools import prepare_data


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return prepare_data.main(["nih", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
