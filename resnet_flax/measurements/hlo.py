"""Counts the kernels, copies and collectives of a training step, from the text (HLO) of its compiled program."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_ARRAY = re.compile(r"\b(pred|token|bf16|[a-z]\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# Instructions that launch nothing: they name, group or wait for results of others.
_FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "domain", "add-dependency", "iota",
}  # fmt: skip
_SLICES = ("slice", "dynamic-slice", "gather")


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of the operations that a part of a program launches; the body of a loop counts as often as it runs.

    Attributes:
      kernels: Fusions, copies and other kernels that the compiler generates.
      library_calls: Calls of libraries such as cuDNN and cuBLAS.
      copies: The copies among the kernels.
      layout_changes: Kernels that change the order of dimensions in memory: copies, and fusions with a transpose.
      collectives: Operations between devices.
      collective_bytes: Bytes that a device passes to collectives.
      bytes: Bytes that all these operations read and write in the device's memory.
    """

    kernels: float = 0
    library_calls: float = 0
    copies: float = 0
    layout_changes: float = 0
    collectives: float = 0
    collective_bytes: float = 0
    bytes: float = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def times(self, count: int) -> "Counts":
        """Returns the counts of ``count`` repetitions."""
        return Counts(*(count * a for a in dataclasses.astuple(self)))

    @property
    def launches(self) -> float:
        """The number of operations that the host, or a graph on its behalf, has to launch."""
        return self.kernels + self.library_calls + self.collectives


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction, which is one line of a computation.

    Attributes:
      name: The instruction's name.
      shape: Shape and layout of the result, as text.
      opcode: The operation, such as ``fusion``.
      operands: Names of the instructions that compute its operands.
      attributes: The text after the operands.
      text: The whole text after the name.
      is_root: Whether its result is the computation's result.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    text: str
    is_root: bool

    @property
    def called(self) -> list[str]:
        """Names of the computations that the instruction runs."""
        found = re.findall(r"(?:calls|to_apply|body|async_computation)=%?([\w.\-]+)", self.attributes)
        for several in re.findall(r"branch_computations=\{([^}]*)\}", self.attributes):
            found += _NAME.findall(several)
        return found + re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", self.attributes)


class Program:
    """A compiled program, parsed from its text (``jax.stages.Compiled.as_text``)."""

    def __init__(self, text: str) -> None:
        self._computations: dict[str, dict[str, Instruction]] = {}
        self._entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if line.endswith("{") and not line.startswith((" ", "HloModule")):
                name = re.findall(r"^(?:ENTRY )?%?([\w.\-]+)", line)[0]
                current = self._computations[name] = {}
                self._entry = name if line.startswith("ENTRY") else self._entry
            elif line.startswith(" ") and " = " in line and (found := _instruction(line)):
                current[found.name] = found
        self._counted: dict[str, Counts] = {}
        self._steps: Instruction | None = None
        self._steps = max(
            (i for i in self._reached(self._entry) if i.opcode == "while"), default=None,
            key=lambda loop: self._count(loop.called[0]).launches,
        )  # fmt: skip

    def step(self) -> Counts:
        """Counts one iteration of the program's longest loop, the loop over the training steps of a call.

        Raises:
          ValueError: The program has no loop.
        """
        if self._steps is None:
            raise ValueError("the compiled program has no loop over steps")
        return self._count(self._steps.called[0])

    def outside_step(self) -> Counts:
        """Counts the operations that a call launches before and after its steps."""
        return self._count(self._entry) + self.step().times(-1)

    def _reached(self, computation: str) -> Iterator[Instruction]:
        """Yields the instructions of a computation and of those that it calls, except the bodies of loops."""
        for instruction in self._computations[computation].values():
            yield instruction
            if instruction.opcode in ("call", "async-start"):
                for name in instruction.called:
                    yield from self._reached(name)

    def _count(self, computation: str) -> Counts:
        if computation not in self._counted:
            instructions = self._computations[computation]
            self._counted[computation] = sum((self._one(i, instructions) for i in instructions.values()), Counts())
        return self._counted[computation]

    def _one(self, one: Instruction, among: Mapping[str, Instruction]) -> Counts:
        opcode = one.opcode.removesuffix("-start")
        if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
            return Counts()
        if opcode == "while":
            return self._count(one.called[0]).times(1 if one is self._steps else self._rounds(one))
        if opcode in ("call", "async"):
            return sum((self._count(name) for name in one.called), Counts())
        if opcode == "conditional":
            return max((self._count(name) for name in one.called), key=lambda counts: counts.launches)
        moved = self._moved(one, among)
        if opcode in _COLLECTIVES:
            taken = [among[name].shape for name in one.operands if name in among]
            return Counts(
                collectives=1, collective_bytes=sum(size(shape, on_chip=True) for shape in taken), bytes=moved
            )
        if opcode == "custom-call":
            library = "__cu" in one.attributes
            return Counts(kernels=not library, library_calls=library, bytes=moved)
        if opcode == "copy":
            return Counts(kernels=1, copies=1, layout_changes=_reorders(one, among), bytes=moved)
        inner = self._computations[one.called[0]] if opcode == "fusion" else {one.name: one}
        return Counts(kernels=1, layout_changes=any(_reorders(i, inner) for i in inner.values()), bytes=moved)

    def _rounds(self, loop: Instruction) -> int:
        """Returns how often a loop's body runs, from the compiler's note or the loop's condition, else 1."""
        if noted := re.search(r'known_trip_count"?[:=]\s*\{"?n"?:"?(\d+)', loop.attributes):
            return int(noted[1])
        named = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        condition = self._computations.get(named[1], {}) if named else {}
        for root in condition.values():
            if root.is_root and root.opcode == "compare" and "direction=LT" in root.attributes:
                limits = [condition[name] for name in root.operands if name in condition]
                counts = [re.match(r".*constant\((\d+)\)", i.text) for i in limits if i.opcode == "constant"]
                return next((int(count[1]) for count in counts if count), 1)
        return 1

    def _moved(self, one: Instruction, among: Mapping[str, Instruction]) -> int:
        """Counts the bytes of an instruction's operands and results; of an operand that is only sliced, the slices'."""
        operands = [among[name].shape if name in among else "" for name in one.operands]
        if not one.opcode.startswith("fusion"):
            if one.opcode in _SLICES:
                return 2 * size(one.shape)
            return sum(map(size, operands)) + size(one.shape)
        inner = self._computations[one.called[0]]
        total = 0
        for i in inner.values():
            if i.opcode == "parameter":
                total += min(size(operands[int(re.findall(r"parameter\((\d+)\)", i.text)[0])]), _read(i.name, inner))
        root = next(i for i in inner.values() if i.is_root)
        results = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
        return total + sum(_written(result, inner) for result in results)


def size(shape: str, on_chip: bool = False) -> int:
    """Returns the bytes of an array, or of the arrays of a tuple.

    Args:
      shape: Shape and layout, as the program's text gives them.
      on_chip: Whether to count arrays in a TPU's on-chip memory, too.
    """
    total = 0
    for kind, dimensions, layout in _ARRAY.findall(shape):
        if "T(" in layout and "S(1)" in layout and not on_chip:
            continue
        bits = 8 if kind == "pred" else int((re.search(r"\d+", kind) or ["0"])[0])
        total += math.prod(int(d) for d in dimensions.split(",") if d) * bits // 8
    return total


def _read(name: str, inner: Mapping[str, Instruction]) -> int:
    """Counts the bytes that a fusion reads of an operand: all, or those of its slices if it is only sliced."""
    total = 0
    for user in inner.values():
        if name not in user.operands:
            continue
        if user.opcode == "bitcast":
            total += _read(user.name, inner)
        elif user.opcode in _SLICES and user.operands[0] == name:
            total += size(user.shape)
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == name):
            return size(inner[name].shape)
    return total


def _written(result: Instruction, inner: Mapping[str, Instruction]) -> int:
    while result.opcode == "bitcast" and result.operands[0] in inner:
        result = inner[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return size(inner[result.operands[1]].shape)
    return size(result.shape)


def _reorders(one: Instruction, among: Mapping[str, Instruction]) -> bool:
    """Tells whether an instruction changes the order of an array's dimensions in memory."""
    if one.opcode == "copy" and one.operands[0] in among:
        return _order(among[one.operands[0]].shape) != _order(one.shape)
    return one.opcode == "transpose"


def _order(shape: str) -> str:
    """Returns the order of an array's dimensions in memory, such as ``3,2,1,0``, without those of length 1."""
    _, dimensions, layout = _ARRAY.findall(shape)[0]
    lengths = [int(d) for d in dimensions.split(",") if d]
    order = [int(d) for d in re.findall(r"\d+", layout.partition(":")[0])]
    return ",".join(str(d) for d in order if lengths[d] > 1)


def _instruction(line: str) -> Instruction | None:
    left, _, right = line.strip().partition(" = ")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.find(" ")
    opened = re.match(r"\s*([\w\-]+)\(", right[end:])
    if opened is None:
        return None
    first = end + opened.end() - 1
    last = _closing(right, first)
    operands = tuple(_NAME.findall(right[first:last]))
    root, name = left.startswith("ROOT "), left.removeprefix("ROOT ").lstrip("%")
    return Instruction(name, right[:end], opened[1], operands, right[last + 1 :], right, root)


def _closing(text: str, opened: int) -> int:
    depth = 0
    for place in range(opened, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)
