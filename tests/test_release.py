"""What is released: sdist and wheel hold what they must, and their metadata say what pyproject.toml says."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("transmeter", "compress")
FOLDERS = (*PACKAGES, "tests", "examples", "data", "docs", "benchmarks", ".ci")
FILES = (
    *("cli.py", "pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE"),
    *("Makefile", "constraints.txt", "mkdocs.yml", ".pre-commit-config.yaml"),
)


def files(*folders):
    """Files of folders of the project, but for what Python and macOS leave there."""
    found = (p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file())
    return {str(p.relative_to(ROOT)) for p in found if "__pycache__" not in p.parts and p.suffix not in (".pyc", ".so")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the sdist, and the wheel that was built from it."""
    work = tmp_path_factory.mktemp("release")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, work / "project" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, "MANIFEST.in"):
        shutil.copy(ROOT / name, work / "project")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(work / "project")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    return work / "dist"


def test_the_sdist_holds_what_the_tests_and_the_readme_need(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {*FILES, *files(*FOLDERS)} <= held


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        held = {n for n in archive.namelist() if ".dist-info/" not in n}
        about = {n.rpartition("/")[2]: archive.read(n).decode() for n in archive.namelist() if ".dist-info/" in n}
    assert held == {"cli.py", *files(*PACKAGES)}
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert "transmeter = cli:main" in about["entry_points.txt"] and "Apache License" in about["LICENSE"]


def test_its_metadata_are_those_of_the_project(built):
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        text = archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    found = HeaderParser().parsestr(text)
    assert (found["Name"], found["Version"]) == (wanted["name"], wanted["version"])
    assert found["Requires-Python"] == ">=3.11" and found["License-Expression"] == "Apache-2.0"
    assert found.get_payload().startswith("# transmeter")
    needed = [Requirement(r) for r in found.get_all("Requires-Dist")]
    assert {str(r) for r in needed if not r.marker} == {str(Requirement(r)) for r in wanted["dependencies"]}
    assert {*wanted["optional-dependencies"]} == {*found.get_all("Provides-Extra")}


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert version in (ROOT / "CHANGELOG.md").read_text()
