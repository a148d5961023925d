"""The published distribution: the library only, without commands and packages of the template."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
    return {"wheel": next(directory.glob("*.whl")), "sdist": next(directory.glob("*.tar.gz"))}


def test_the_wheel_contains_the_library_and_its_metadata(built: dict[str, Path]) -> None:
    with ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    metadata = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"session_core", metadata}
    assert f"{metadata}/entry_points.txt" not in names
    assert "session_core/py.typed" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "session_core").rglob("*") if path.suffix in {".py", ".lua"}}
    assert modules == {name for name in names if name.endswith((".py", ".lua"))}


def test_the_source_distribution_contains_nothing_of_the_template(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2].partition("/")[0] for name in sdist.getnames()}
    assert names.isdisjoint({"app", "auth_demo", "tests", "docs", "benchmarks"})
    assert "session_core" in names


def metadata_of(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def test_the_description_is_the_readme_without_links_into_the_repository(built: dict[str, Path], tmp_path: Path) -> None:
    readme, text = (ROOT / "README.md").read_text(), str(metadata_of(built["wheel"]).get_payload())
    assert re.findall(r"\]\((?!https?:)[^)]*\)|!\[", text) == []
    for kept in (r"(?ms)^```.*?^```$", r"(?m)^\|.*\|$"):  # code and tables
        assert len(re.findall(kept, text)) == len(re.findall(kept, readme)) > 0
    assert readme.splitlines()[0] == text.splitlines()[0]
    # The source distribution has what its own build needs.
    with tarfile.open(built["sdist"]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(command, cwd=unpacked, check=True, capture_output=True, timeout=200)
    assert metadata_of(next((tmp_path / "dist").glob("*.whl"))).get_payload() == text


def test_each_extra_belongs_to_the_library(built: dict[str, Path]) -> None:
    told = metadata_of(built["wheel"])
    assert "app" not in told.get_all("Provides-Extra", [])
    assert not any("granian" in requirement for requirement in told.get_all("Requires-Dist", []))


def test_the_repository_has_the_commands_of_the_template() -> None:
    commands = {entry.name for entry in distribution(PROJECT["name"]).entry_points.select(group="console_scripts")}
    assert "serve" in commands


def test_the_lowest_versions_of_every_extra_are_tested() -> None:
    installed = re.search(r'--resolution lowest-direct .*\n? *-e "\.\[([a-z0-9,-]+)\]"', (ROOT / ".ci" / "run").read_text())
    assert installed is not None
    assert {*installed[1].split(",")} == set(PROJECT["optional-dependencies"])
