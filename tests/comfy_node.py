"""The ComfyUI node as ComfyUI loads it: a folder, by its path."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"
NAME = "retom_comfyui_node"


def load():
    """The package; the same one each time."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = module
        spec.loader.exec_module(module)
    return sys.modules[NAME]


def part(name):
    """One of its modules."""
    load()
    return importlib.import_module(f"{NAME}.{name}")
