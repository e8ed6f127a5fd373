"""What a compiled program holds and sends, read from it without running it."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(rf"= (.+?) ({'|'.join(COLLECTIVES)}|while)(-start)?\(")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|called_computations|branch_computations)=\{?((?:%[\w.\-]+,? ?)+)"
)
_ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r"condition=%([\w.\-]+)")
_LESS = re.compile(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device while a program runs."""

    arguments: int
    outputs: int
    """Without those that are written over an argument."""
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a program."""

    count: int
    """So often they run; a loop whose rounds are not known counts once."""
    bytes: int
    """Of their results on one device."""


def memory(compiled: Any) -> Memory:
    """What a program that JAX compiled holds on one device."""
    analysis = compiled.memory_analysis()
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    code = analysis.generated_code_size_in_bytes
    return Memory(analysis.argument_size_in_bytes, outputs, analysis.temp_size_in_bytes, code)


def collectives(text: str) -> dict[str, Collective]:
    """The collectives of a compiled program, from its text; those in a loop count in each of its rounds."""
    computations, main = _computations(text)
    found: dict[str, Collective] = {}
    for kind, size, times in _sent(computations, main, 1):
        before = found.get(kind, Collective(0, 0))
        found[kind] = Collective(before.count + times, before.bytes + size * times)
    return {kind: found[kind] for kind in COLLECTIVES if kind in found}


def seconds_on_links(found: dict[str, Collective], devices: int, links: float) -> float:
    """The least time in which devices in a ring send what collectives need, over `links` bytes a second from each.

    Of n devices, each sends (n - 1) / n of what it receives in all, and for an all-reduce twice that (Thakur,
    Rabenseifner & Gropp 2005).
    """
    share = (devices - 1) / devices
    sent = {"all-reduce": 2 * share, "reduce-scatter": share * devices, "collective-permute": 1.0}
    return sum(sent.get(kind, share) * each.bytes for kind, each in found.items()) / links


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by its name, and the name of the one that is run."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    main = ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            lines = found[start[2]] = []
            main = start[2] if start[1] else main
        else:
            lines.append(line)
    return found, main


def _sent(computations: dict[str, list[str]], name: str, times: int) -> Iterator[tuple[str, int, int]]:
    """Kind, bytes and number of times of every collective of a computation and of those that it calls."""
    for line in computations[name]:
        operation = _OPERATION.search(line)
        if operation and operation[2] in COLLECTIVES:
            yield operation[2], _bytes(operation[1], pair=bool(operation[3]) and operation[2] != "all-reduce"), times
            continue  # what it applies is the sum of two numbers
        rounds = _rounds(computations, line) if operation and operation[2] == "while" else 1
        for names in _CALLED.findall(line):
            for called in re.findall(r"%([\w.\-]+)", names):
                yield from _sent(computations, called, times * rounds)


def _rounds(computations: dict[str, list[str]], loop: str) -> int:
    """How often a loop runs: as the compiler notes it, or as a scan is compiled, while it counts below a constant.
    1 for other loops."""
    if noted := _ROUNDS.search(loop):
        return int(noted[1])
    condition = _CONDITION.search(loop)
    lines = computations[condition[1]] if condition else []
    for limit in (less[1] for less in map(_LESS.search, lines) if less):
        for line in lines:
            if constant := re.search(rf"%{re.escape(limit)} = s32\[\]\S* constant\((\d+)\)", line):
                return int(constant[1])
    return 1


def _bytes(shape: str, pair: bool) -> int:
    """Bytes of a type. pair: the start of an operation that ends later, whose type begins with operand and result, of
    which the result counts."""
    arrays = [(8 if name == "pred" else int(bits)) * math.prod(map(int, filter(None, dims.split(","))))
              for name, bits, dims in _ARRAY.findall(shape)]  # fmt: skip
    if pair:
        arrays = arrays[len(arrays) // 2 :] if shape.startswith("((") else arrays[1:2]
    return sum(arrays) // 8
