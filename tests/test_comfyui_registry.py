"""What ComfyUI's registry reads of the node: by its rules, and true of the files beside it."""

import json
import re
import tomllib
from xml.etree import ElementTree

import comfy_node
import pytest

import retom

README = (comfy_node.FOLDER / "README.md").read_text(encoding="utf-8")
OPERATING_SYSTEMS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
ACCELERATORS = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}
VERSIONS = re.compile(r"(==|>=|<=|!=|~=|>|<|<>|=)?\s*\d+\.\d+\.\d+(-[a-zA-Z0-9]+)?")
"""How comfy-cli reads each part of ``requires-comfyui``; others it drops with a warning."""


@pytest.fixture(scope="module")
def metadata():
    return tomllib.loads((comfy_node.FOLDER / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project(metadata):
    return metadata["project"]


@pytest.fixture(scope="module")
def comfy(metadata):
    return metadata["tool"]["comfy"]


def test_the_name_is_one_that_the_registry_takes(project):
    name = project["name"]
    assert len(name) < 100
    assert re.fullmatch(r"[A-Za-z]+([-_.][A-Za-z0-9]+)*", name)
    assert "comfyui" not in name.lower()


def test_the_version_is_the_librarys(project):
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["version"] == retom.__version__


def test_what_it_needs_is_said_twice_and_alike(project):
    """Installers of nodes read the requirements, the registry reads the dependencies."""
    requirements = (comfy_node.FOLDER / "requirements.txt").read_text(encoding="utf-8").split()
    assert project["dependencies"] == requirements == [f"retom>={retom.__version__}"]
    library = tomllib.loads((comfy_node.FOLDER.parents[1] / "pyproject.toml").read_text("utf-8"))
    assert project["requires-python"] == library["project"]["requires-python"]


def test_files_that_it_names_are_there(project):
    for name in (project["readme"], project["license"]["file"]):
        assert (comfy_node.FOLDER / name).is_file()
    assert "Apache License" in (comfy_node.FOLDER / project["license"]["file"]).read_text("utf-8")


def test_classifiers_are_those_that_the_registry_knows(project):
    for classifier in project["classifiers"]:
        kind, value = classifier.split(" :: ", 1)
        assert kind in ("Operating System", "Environment")
        if kind == "Operating System":
            assert value.startswith(OPERATING_SYSTEMS)
        else:
            assert value.removeprefix("GPU :: ") in ACCELERATORS


def test_the_oldest_comfyui_is_one_that_it_was_run_on(comfy):
    parts = [part.strip() for part in comfy["requires-comfyui"].split(",")]
    assert all(VERSIONS.fullmatch(part) for part in parts)
    (oldest,) = (part.removeprefix(">=") for part in parts if part.startswith(">="))
    assert f"{oldest} on a CPU" in README


def test_no_key_is_misspelt(comfy, project):
    """The registry takes what it knows, and is silent about the rest."""
    known = {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui", "includes"}
    assert set(comfy) <= known
    assert {"PublisherId", "DisplayName", "Icon", "requires-comfyui"} <= set(comfy)
    assert set(project.get("urls", {})) <= {"Repository", "Documentation", "Bug Tracker", "Issues"}


def test_what_only_a_person_can_fill_in_is_said(comfy, project):
    open_places = [key for key in ("PublisherId", "Icon") if not comfy[key]]
    open_places += [] if project.get("urls", {}).get("Repository") else ["Repository"]
    assert all(f"`{key}`" in README for key in open_places)
    assert re.fullmatch(r"(https://\S+)?", comfy["Icon"])


def test_the_icon_is_small_enough():
    icon = ElementTree.parse(comfy_node.FOLDER / "icon.svg").getroot()
    assert int(icon.get("width")) <= 800
    assert int(icon.get("height")) <= 400


def test_the_nodes_are_those_of_the_readme_and_the_workflow():
    node = comfy_node.load()
    assert set(node.NODE_CLASS_MAPPINGS) == set(node.NODE_DISPLAY_NAME_MAPPINGS)
    for name, cls in node.NODE_CLASS_MAPPINGS.items():
        assert callable(getattr(cls, cls.FUNCTION))
        assert f"**{node.NODE_DISPLAY_NAME_MAPPINGS[name]}**" in README
    workflow = json.loads((comfy_node.FOLDER / "workflows" / "sd15_retom_api.json").read_text())
    used = {step["class_type"] for step in workflow.values()}
    assert used & set(node.NODE_CLASS_MAPPINGS)
