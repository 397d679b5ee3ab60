"""A machine for pickles that calls nothing but what it is given, and never takes more memory than the file does.

A pickle is a program for a machine with a stack, and Python's own machine imports and calls whatever the program names.
This one has no instruction that imports, calls or changes anything outside of it: whatever a file names beside the
functions it is given, or makes of it, is an :class:`Unknown`, which remembers the name and does nothing.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

# A checkpoint with an optimizer's state has some 100,000 instructions. Each may take 200 bytes of memory.
_MOST_INSTRUCTIONS = 2**22
_LONGEST_ITEM = 2**28  # bytes of a text or number
_LONGEST_INTEGER = 1024  # bits; a key is hashed again each time it is used


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Stands for what a file names, or would make, and what is not made.

    Attributes:
      what: in words, such as ``argparse.Namespace``.
    """

    what: str


@dataclasses.dataclass
class Deferred:
    """Stands for an object that is put in place only afterwards, by BUILD.

    Attributes:
      data: the object.
    """

    data: Any = None


@dataclasses.dataclass(frozen=True)
class KnownFunction:
    """A function that a file may name; the machine alone calls it.

    Attributes:
      name: with its module.
      function: makes an object, with no other effect.
    """

    name: str
    function: Callable[..., Any]


class Machine:
    """Runs one pickle.

    Args:
      file: at the pickle's first byte; then behind its last.
      known: the functions that it may call, by name.
      persistent: what a persistent id stands for.
    """

    def __init__(self, file: "Part", known: Mapping[str, KnownFunction], persistent: Callable[[Any], Any]) -> None:
        self._file, self._known, self._persistent = file, known, persistent
        self._budget = 2**20 + file.size  # items that calls may copy in all; those of an honest file are in it once
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self.containers: list[dict | list] = []  # all that it made

    def run(self) -> Any:
        """The object that the pickle describes."""
        instructions = pickletools.genops(self._file)  # type: ignore[arg-type]  # it calls read and readline alone
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
            case _:  # the rest are numbers and texts
                long = type(argument) is int and argument.bit_length() > _LONGEST_INTEGER
                stack.append(Unknown("a huge integer") if long else argument)

    def _items(self) -> list[Any]:
        """Takes what lies above the last mark."""
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
            raise ValueError("it copies more than it holds")
        try:
            found = function.function(*arguments)
        except (TypeError, ValueError):
            return Unknown(f"{function.name} of something else")
        return self._made(found) if isinstance(found, dict) else found


def dict_of(pairs: Any = ()) -> dict:
    """The dict of an iterable of keys and values."""
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    """A dict's key; a tuple could be nested so deeply that hashing it overflows C's stack."""
    return key if isinstance(key, str | int | float | bytes | None) else Unknown(f"a key: {brief(key)}")


def brief(value: Any) -> str:
    """A text's beginning; of anything else, its type."""
    return value[:200] if isinstance(value, str) else type(value).__name__


class Part:
    """Bytes ``start`` to ``start + size`` of a file, for pickletools; an item that is too long is refused."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self.place, self.size = file, start, size
        self._end = start + size

    def read(self, count: int) -> bytes:
        """Reads up to so many bytes."""
        if count > _LONGEST_ITEM:
            raise ValueError(f"it holds an item of {count} bytes")
        self._file.seek(self.place)  # others may read beside
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
        """Reads so many bytes.

        Raises:
          ValueError: there are not so many.
        """
        found = self.read(count)
        if len(found) < count:
            raise ValueError("it ends early")
        return found

    def skip(self, count: int) -> int:
        """Passes over so many bytes; returns where they begin in the file.

        Raises:
          ValueError: there are not so many.
        """
        start = self.place
        if not 0 <= count <= self._end - start:
            raise ValueError("a storage ends early")
        self.place += count
        return start
