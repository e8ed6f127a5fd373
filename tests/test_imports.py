"""Imports run one way: the layers of pyproject.toml, and no circle of files."""

import graphlib
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]


def test_imports_run_downwards():
    """The contracts of `[tool.importlinter]`: no layer imports one above or beside it, no circle of packages."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout.partition("Broken contracts")[2] or done.stdout + done.stderr


def test_no_circle_of_files():
    """File by file, imports inside functions included: an order exists in which each file only needs earlier ones."""
    graph = grimp.build_graph("genmap_jax", cache_dir=None)
    needs = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(needs) > 60
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))
