"""``python -m retom`` is the command ``retom``."""

from retom.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
