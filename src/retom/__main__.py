"""``python -m retom`` is the command ``retom``."""

from retom.cli import main

raise SystemExit(main())
