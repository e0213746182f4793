"""Several results of ``retom eval`` as one JSON object by name, to stdout."""

import argparse
import json
from pathlib import Path


def main() -> None:
    """Print the object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where NAME.json lie")
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    read = {n: (options.folder / f"{n}.json").read_text("utf-8") for n in options.names}
    print(json.dumps({name: json.loads(text) for name, text in read.items()}))


if __name__ == "__main__":
    main()
