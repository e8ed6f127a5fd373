"""README and docs/: their Python runs, their commands parse, their links lead somewhere, their numbers are sourced.

Training loops of the text are cut to three steps. Commands are parsed by the code that would run them.
"""

import argparse
import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import NamedTuple

import pytest

from genmap_jax.algorithm import Algorithm, Family
from genmap_jax.commands import cli, experiment
from genmap_jax.run import runs
from genmap_jax.spaces import Space

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list[tuple[str, str]]:
    """(page:number, text) of every fenced block in a language."""
    found = []
    for page in PAGES:
        texts = [text for kind, text in FENCE.findall(page.read_text()) if kind == language]
        found += [(f"{name(page)}:{i}", text) for i, text in enumerate(texts)]
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


# ---- Python ----------------------------------------------------------------------------------------------------------


def programs() -> list:
    """Those of the families' pages compile for many seconds each, and README's is like them."""
    slow = lambda where: pytest.mark.slow if "families/" in where else ()  # noqa: E731
    return [pytest.param(where, text, id=where, marks=slow(where)) for where, text in blocks("python")]


@pytest.mark.parametrize(("where", "text"), programs())
def test_python_runs(where, text, tmp_path, monkeypatch):
    """Each block by itself, in an empty folder; records printed on a page have the fields of the real ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for other, module in blocks("python"):  # files that a page shows are there for its other blocks
        title = re.match(r'"""(\w+)\.py: ', module)
        if title and other.split(":")[0] == where.split(":")[0]:
            (tmp_path / f"{title[1]}.py").write_text(module)
    text = re.sub(r"^(for \w+ in range)\(\d+\)", r"\1(3)", text, flags=re.MULTILINE)
    values = {"__name__": "page", "NamedTuple": NamedTuple, "Callable": Callable, "Space": Space}
    exec(compile(text, where, "exec"), values)
    for record in (Algorithm, Family):
        if f"class {record.__name__}(" in text:
            assert values[record.__name__]._fields == record._fields


@pytest.mark.slow
def test_the_family_of_a_stranger_trains(tmp_path):
    """docs/fork.md: its two files, outside of the checkout, through the runner; then sampled as the page says."""
    family, script = (text for where, text in blocks("python") if where.startswith("docs/fork.md"))
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "my_gaussian.py").write_text(family)
    (tmp_path / "experiments" / "my_gaussian_toy.py").write_text(script)
    command = [sys.executable, "experiments/my_gaussian_toy.py", "--steps", "5", "--workdir", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "exact" in json.dumps(result)


# ---- commands --------------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of a shell block, an indented block or inline code that runs something of ours."""
    found = []
    for page in PAGES:
        text = page.read_text()
        shown = [body.replace("\\\n", " ") for kind, body in FENCE.findall(text) if kind == "sh"]
        lines = [(line, True) for body in shown for line in body.splitlines() if line.strip()]
        lines += [(line, False) for line in prose(page).splitlines() if line.startswith("    ")]
        lines += [(code, False) for code in CODE.findall(text) if code.count(" ") > 1]  # fewer words only name it
        for line, surely in lines:
            line = re.sub(r"^\s*([A-Z_]+=\S+ )*", "", line)
            if surely or any(line.startswith(f"{program} ") for program in PROGRAMS):
                found.append((name(page), shlex.join(shlex.split(line, comments=True))))
    return sorted(set(found))


class Parsed(Exception):
    """Raised where a script would begin to work."""


def experiment_command(script: str, words: list[str], monkeypatch) -> None:
    """The flags are known, the ablation exists, the configuration can be built."""
    path = ROOT / script
    if "CONFIG" not in path.read_text() or not hasattr(runs.read_experiment(path), "ablations"):
        return other_script(path, words, monkeypatch)
    opened = runs.read_experiment(path)
    seen = []
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.setattr(experiment, "run", lambda *args: seen.append(args) or 0)
    with pytest.raises(SystemExit) as stop:
        experiment.main(opened.config, opened.family, opened.ablations)
    assert stop.value.code == 0
    if "--help" in words:
        return None
    cfg, family, ablations, _, also = seen[0]
    for chosen in (also.variant, also.ablation):
        assert chosen in (None, "all", "baseline", *ablations), chosen
    family.algorithm(cfg.model, batch_size=cfg.batch_size)
    return None


def other_script(path: Path, words: list[str], monkeypatch) -> None:
    """Tools beside the experiments, which use argparse."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name="__main__")


def genmap_command(words: list[str], monkeypatch) -> None:
    """The flags are known; changes after training are fields that the family lets change."""
    seen = []
    for function in ("_map", "_evaluate", "_sample", "_compare", "_list", "_prepare"):
        monkeypatch.setattr(cli, function, lambda args: seen.append(args) or 0)
    if words == ["list"] or words[0] in ("map", "evaluate", "sample", "compare", "list", "prepare"):
        cli.main(words)
        (args,) = seen
        for flag, _ in zip(args.changes[::2], args.changes[1::2], strict=True):
            run = Path(words[1]).name
            script = ROOT / "experiments" / f"{run}.py"
            if script.exists():
                field = flag.removeprefix("--model.").replace("-", "_")
                assert field in runs.read_experiment(script).family.sampling, flag


def launched(words: list[str], monkeypatch) -> None:
    """What launch/local.sh makes of its arguments."""
    if not words or words[0] == "--help":
        return
    if words[0].endswith(".py"):
        experiment_command(words[0], words[1:], monkeypatch)
    else:
        genmap_command(words, monkeypatch)


def python_command(words: list[str], monkeypatch) -> None:
    assert words[0].startswith(("experiments/", "tests/")), words
    experiment_command(words[0], words[1:], monkeypatch)


def bash_command(words: list[str], monkeypatch) -> None:
    assert (ROOT / words[0]).is_file(), words[0]
    if words[0] == "launch/local.sh":
        launched(words[1:], monkeypatch)
    elif words[0] == "launch/tpu_pod.sh":
        launched(words[3:], monkeypatch)


def sbatch_command(words: list[str], monkeypatch) -> None:
    launched(words[words.index("launch/slurm.sbatch") + 1 :], monkeypatch)


def pip_command(words: list[str], monkeypatch) -> None:
    if "--target" in words:  # beside the environment: the TPU's compiler, in the version that this JAX asks for
        assert any(asked.startswith(f"{words[-1]};") for asked in requires("jax") or [])
        assert words[-1] in (ROOT / ".ci" / "run").read_text()
        return
    extras = re.search(r"\.\[([\w,]+)\]", shlex.join(words))
    assert extras and set(extras[1].split(",")) <= set(EXTRAS)


def file_command(words: list[str], monkeypatch) -> None:
    assert all((ROOT / word).exists() for word in words if "/" in word), words


PROGRAMS = {
    "genmap": genmap_command,
    "python": python_command,
    "bash": bash_command,
    "sbatch": sbatch_command,
    "pip": pip_command,
    "kubectl": file_command,
    "mkdocs": file_command,
    ".venv/bin/pre-commit": file_command,
}


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_parse(page, command, monkeypatch):
    program, *words = shlex.split(command)
    assert program in PROGRAMS, f"{page}: teach this test what {program} is"
    if program == "python" and words[0] == "experiments/my_gaussian_toy.py":
        return  # docs/fork.md writes it: test_the_family_of_a_stranger_trains
    PROGRAMS[program](words, monkeypatch)


def test_commands_are_found():
    """The reader of pages sees all three ways in which a page can show a command."""
    found = {command for _, command in commands()}
    assert len(found) > 40
    assert "genmap compare runs/latent8 runs/vae_digits" in found  # a shell block
    assert "python experiments/gan_toy.py --seeds 3" in found  # inline code
    assert ".venv/bin/pre-commit install" in found  # an indented block


# ---- links, names, numbers -------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What a heading is called in an address, as GitHub and the site spell it."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if ROOT / "docs" in page.parents:
            assert file.is_relative_to(ROOT / "docs"), f"{target}: the site holds docs/ only"
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_named_exists(page):
    """Files, and tests in the tables of proofs."""
    for code in CODE.findall(prose(page)):
        path, _, test = code.partition("::")
        if re.fullmatch(r"[\w./-]+/[\w.-]*\w\.(py|sh|yaml|sbatch)", path) and not re.search(r"[A-Z]{3}", path):
            file = next((f for f in (ROOT / path, ROOT / "genmap_jax" / path) if f.exists()), None)
            assert file or path.startswith("experiments/my_"), code
            if test:
                functions = {n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)}
                assert test in functions, code


def test_numbers_are_those_of_the_experiments():
    """A row of a table that begins with an experiment says nothing that the experiment's docstring does not say."""
    rows = 0
    for page in PAGES:
        for script, result in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page.read_text(), re.MULTILINE):
            path = ROOT / "experiments" / f"{script}.py"
            if path.exists():
                rows += 1
                document = ast.get_docstring(ast.parse(path.read_text()))
                missing = [n for n in re.findall(r"-?\d+\.\d+", result) if n not in document]
                assert not missing, f"{name(page)}: {script}: {missing}"
    assert rows >= 20


# ---- the site --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    """Strict: a warning is an error. Every docstring that a page shows is found."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "families" / "vae" / "index.html").exists()
