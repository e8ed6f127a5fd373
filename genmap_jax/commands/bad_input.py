"""How a command tells bad input: one line on stderr that names what is wrong and the fix, and exit code 2."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, get_args

from genmap_jax.options import fits, words

BAD_INPUT = 2


@contextlib.contextmanager
def told(program: str) -> Iterator[None]:
    """End the program in one line where something inside raises ValueError, OSError or ImportError.

    With GENMAP_TRACEBACK set the error is raised as it is.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("GENMAP_TRACEBACK"):
            raise
        text = " ".join(str(error).split())
        print(f"{program}: error: {text} (GENMAP_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(BAD_INPUT)


def refuse_empty(line: Sequence[str]) -> None:
    """Raises ValueError for a word of a command line that is empty, as an unset variable of a shell makes it."""
    for before, word in zip(["the first argument", *line], line, strict=False):
        flag = word.removesuffix("=") if word.startswith("--") and word.endswith("=") else before
        if flag is not before or not word.strip():
            raise ValueError(f"{flag}: what follows is empty; give a value, or leave it out")


class Parser(argparse.ArgumentParser):
    """A parser that tells an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {' '.join(message.split())}\n")


def number(kind: Any) -> Callable[[str], Any]:
    """What argparse calls as the `type` of an argument: a number of a type of `genmap_jax.options`, such as `Count`."""
    base, *_ = get_args(kind)

    def read(word: str) -> Any:
        try:
            value = base(word)
        except ValueError:
            value = word
        if not fits(value, kind):
            raise argparse.ArgumentTypeError(f"{word!r}: give {words(kind)}")
        return value

    return read
