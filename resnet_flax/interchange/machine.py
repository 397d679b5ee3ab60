"""A restricted interpreter for pickles. It calls only the functions it is given, and its memory is bounded by the file.

A pickle is a program for a stack machine. Python's own interpreter imports and calls whatever the program names. This
one cannot import, call or change anything outside itself. If a file names or calls anything except the given functions,
the result is an :class:`Unknown`, an inert placeholder with the name.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

# A checkpoint with an optimizer's state has some 100,000 instructions. Each may take 200 bytes of memory.
_MOST_INSTRUCTIONS = 2**22
_LONGEST_ITEM = 2**28  # bytes of a text or number
_LONGEST_INTEGER = 1024  # bits; a longer integer as a key would be slow, as it is hashed each time it is used


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Placeholder for an object that is not created, because only code from the file could do so.

    Attributes:
      what: A description for messages, such as ``argparse.Namespace``.
    """

    what: str


@dataclasses.dataclass
class Deferred:
    """Placeholder for an object that the BUILD instruction provides later.

    Attributes:
      data: The object.
    """

    data: Any = None


@dataclasses.dataclass(frozen=True)
class KnownFunction:
    """A function that a file may call.

    Attributes:
      name: The full name, with the module.
      function: Creates an object and has no side effect.
    """

    name: str
    function: Callable[..., Any]


class Machine:
    """Runs one pickle.

    Args:
      file: The file, positioned at the pickle's first byte. A run moves it to the byte after the last one.
      known: The functions that the pickle may call, by name.
      persistent: Returns the object for a persistent id.
    """

    def __init__(self, file: "Part", known: Mapping[str, KnownFunction], persistent: Callable[[Any], Any]) -> None:
        self._file, self._known, self._persistent = file, known, persistent
        self._budget = 2**20 + file.size  # items that calls may copy in total; an honest file holds each of them once
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self.containers: list[dict | list] = []  # every dict and list that was created

    def run(self) -> Any:
        """Runs the pickle and returns the object that it describes.

        Raises:
          ValueError: The pickle is damaged or exceeds a limit. A damaged one may raise other exceptions, too.
        """
        instructions = pickletools.genops(self._file)  # type: ignore[arg-type]  # only read and readline are called
        for count, (opcode, argument, _) in enumerate(instructions):
            if count >= _MOST_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {_MOST_INSTRUCTIONS} instructions")
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "POP" if self._marks and self._marks[-1] == len(stack):
                self._marks.pop()
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._items()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                items: Sequence[Any] = tuple(stack[-count:])
                if len(items) < count:
                    raise ValueError("its stack is empty")
                stack[-count:] = [items]
            case "TUPLE":
                stack.append(tuple(self._items()))
            case "EMPTY_LIST" | "LIST":
                stack.append(self._made(self._items() if name == "LIST" else []))
            case "EMPTY_DICT":
                stack.append(self._made({}))
            case "DICT":
                items = self._items()
                stack.append(self._made(dict_of(zip(items[::2], items[1::2], strict=True))))
            case "APPEND" | "APPENDS":
                items = self._items() if name == "APPENDS" else [stack.pop()]
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._items() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                if isinstance(stack[-1], dict):
                    stack[-1].update(dict_of(zip(items[::2], items[1::2], strict=True)))
            case "EMPTY_SET":
                stack.append(Unknown("set"))
            case "FROZENSET":
                self._items()
                stack.append(Unknown("frozenset"))
            case "ADDITEMS":
                self._items()
            case "GLOBAL":
                stack.append(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self._named(module, attribute))
            case "EXT1" | "EXT2" | "EXT4":
                stack.append(Unknown(f"extension {argument}"))
            case "INST":
                stack.append(self._call(self._named(*argument.split(" ", 1)), tuple(self._items())))
            case "OBJ":
                function, *items = self._items()
                stack.append(self._call(function, tuple(items)))
            case "REDUCE" | "NEWOBJ":
                items, function = stack.pop(), stack.pop()
                stack.append(self._call(function, items))
            case "NEWOBJ_EX":
                _, items, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(self._call(function, items))
            case "BUILD":
                state = stack.pop()
                # PyTorch 0.1: (data, gradient, hooks, requires_grad, volatile). Nothing else has a state.
                if isinstance(stack[-1], Deferred) and isinstance(state, tuple) and len(state) == 5:
                    stack[-1].data = state[0]
            case "PERSID" | "BINPERSID":
                stack.append(self._persistent(argument if name == "PERSID" else stack.pop()))
            case "NEXT_BUFFER" | "READONLY_BUFFER":
                raise ValueError("it needs buffers beside it")
            case _:  # all remaining instructions are numbers and texts
                long = type(argument) is int and argument.bit_length() > _LONGEST_INTEGER
                stack.append(Unknown("a huge integer") if long else argument)

    def _items(self) -> list[Any]:
        """Pops the items above the last mark."""
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _named(self, module: Any, name: Any) -> Any:
        full = f"{brief(module)}.{brief(name)}"
        return self._known.get(full, Unknown(full))

    def _made(self, container: Any) -> Any:
        self.containers.append(container)
        return container

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, KnownFunction) or not isinstance(arguments, tuple):
            return Unknown(function.what if isinstance(function, Unknown) else brief(function))
        self._budget -= sum(len(a) for a in arguments if isinstance(a, list | tuple | dict))
        if self._budget < 0:
            raise ValueError("its calls copy more items than the file holds")
        try:
            found = function.function(*arguments)
        except (TypeError, ValueError):
            return Unknown(f"{function.name} of something else")
        return self._made(found) if isinstance(found, dict) else found


def dict_of(pairs: Any = ()) -> dict:
    """Builds a dict from pairs of keys and values."""
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    """Replaces a key that is not a simple value: hashing a deeply nested tuple would overflow C's stack."""
    return key if isinstance(key, str | int | float | bytes | None) else Unknown(f"a key: {brief(key)}")


def brief(value: Any) -> str:
    """Returns the beginning of a text, or the name of another value's type."""
    return value[:200] if isinstance(value, str) else type(value).__name__


class Part:
    """File-like object for the bytes ``start`` to ``start + size`` of a file; refuses to read too long an item."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self.place, self.size = file, start, size
        self._end = start + size

    def read(self, count: int) -> bytes:
        """Reads up to ``count`` bytes."""
        if count > _LONGEST_ITEM:
            raise ValueError(f"it holds an item of {count} bytes")
        self._file.seek(self.place)  # other parts share the file's position
        found = self._file.read(min(count, self._end - self.place))
        self.place += len(found)
        return found

    def readline(self) -> bytes:
        """Reads a line."""
        self._file.seek(self.place)
        found = self._file.readline(min(_LONGEST_ITEM, self._end - self.place))
        self.place += len(found)
        return found

    def exactly(self, count: int) -> bytes:
        """Reads exactly ``count`` bytes.

        Raises:
          ValueError: The part ends before.
        """
        found = self.read(count)
        if len(found) < count:
            raise ValueError("it ends early")
        return found

    def skip(self, count: int) -> int:
        """Skips ``count`` bytes and returns their offset in the file.

        Raises:
          ValueError: The part ends before.
        """
        start = self.place
        if not 0 <= count <= self._end - start:
            raise ValueError("a storage ends early")
        self.place += count
        return start
