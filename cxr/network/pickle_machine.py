"""A pickle interpreted without executing anything: plain values, a few known names, and no call.

A pickle is a program for a stack machine that may call any function of any module. This machine imports and calls
nothing: whoever runs it says which names may occur and what stands for a call of them; every other name is refused.
"""

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_PICKLE_BYTES = 8_000_000  # a checkpoint of DenseNet121 with its optimiser has under 0.3 MB beside the tensors
MAX_OPCODES = 1_000_000
MAX_TEXT = 200  # characters of what a message quotes from a file


class PickleError(ValueError):
    """A pickle that holds something else than what is read here, or is damaged."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle imports; nothing is imported for it."""

    text: str


@dataclass(frozen=True)
class PickleMachine:
    """The stack machine of the pickle protocols 0 to 5 (PEP 3154; Lib/pickletools.py), without its calls.

    Attributes:
        known_names: the "module.name" that may occur.
        make: what stands for a call of a known name with its arguments.
        persistent: what stands for a reference to something outside the pickle.
        build: takes what a call stands for, and the attributes that it is then given; by default they are left out.
        known_starts: names that begin with one of these may occur too.
    """

    known_names: Collection[str]
    make: Callable[[str, tuple], Any]
    persistent: Callable[[Any], Any]
    build: Callable[[Any, Any], None] = lambda made, attributes: None
    known_starts: tuple[str, ...] = ()

    def run(self, file: BinaryIO) -> Any:
        """Interpret one pickle from where `file` stands. Raises: PickleError."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(_Limited(file, MAX_PICKLE_BYTES))):
                if opcode.name == "STOP":
                    return stack.pop()
                if number > MAX_OPCODES:
                    raise PickleError(f"a pickle of more than {MAX_OPCODES:,} steps")
                self._step(opcode.name, argument, stack, memo)
        except PickleError:
            raise
        # What pickletools and a stack that does not fit raise on damaged input.
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise PickleError(f"a damaged pickle ({quoted(error)})") from error
        raise PickleError("a pickle without an end")

    def _step(self, name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _CONTAINERS:
            _CONTAINERS[name](stack)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "INST"):
            stack.append(self._known(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._known(f"{module}.{attribute}" if type(module) is type(attribute) is str else "?"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, callee = stack.pop(), stack.pop()
            if not isinstance(callee, Name) or not isinstance(arguments, tuple):
                raise PickleError("a call of something that has no name")
            stack.append(self.make(callee.text, arguments))
        elif name == "BUILD":
            attributes = stack.pop()  # beside the content, such as a state dict's _metadata
            self.build(stack[-1], attributes)
        elif name == "BINPERSID":
            stack.append(self.persistent(stack.pop()))
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(f"the pickle instruction {name}, which no file of plain values needs")

    def _known(self, name: str) -> Name:
        if name not in self.known_names and not name.startswith(self.known_starts):
            raise PickleError(f"the name {quoted(name)}, which is none of those that are read")
        return Name(name)


def dict_of(arguments: tuple) -> dict[Any, Any]:
    """Return what a call of dict with these arguments would: nothing, or one sequence of pairs."""
    made: dict[Any, Any] = {}
    _update(made, [part for pair in (arguments[0] if arguments else ()) for part in pair])
    return made


def quoted(value: object) -> str:
    """Show a part of the file in a message: printable, short, on one line; of nested values only their type.

    A tuple of itself a hundred times over would take for ever to print.
    """
    plain = isinstance(value, str | int | float | Exception)
    text = ascii(str(value))[1:-1] if plain else type(value).__name__
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


class _Limited:
    """The part of a file that a pickle may take: what pickletools reads, and no more than a limit."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file, self._left = file, max_bytes

    def read(self, count: int = -1) -> bytes:
        return self._taken(self._file.read(self._bounded(count)))

    def readline(self) -> bytes:
        return self._taken(self._file.readline(self._left))

    def tell(self) -> int:
        return self._file.tell()

    def _bounded(self, count: int) -> int:
        if not 0 <= count <= self._left:
            raise PickleError(f"a pickle of more than {MAX_PICKLE_BYTES:,} bytes")
        return count

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


# The instructions that push their argument, a constant, or something empty.
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}  # fmt: skip
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list}


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take everything above the topmost mark, and the mark, from the stack."""
    position = len(stack) - 1
    while stack[position] is not _MARK:
        position -= 1
        if position < 0:
            raise PickleError("a damaged pickle (a mark is missing)")
    taken = stack[position + 1 :]
    del stack[position:]
    return taken


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def make(stack: list[Any]) -> None:
        if len(stack) < count:
            raise PickleError("a damaged pickle (its stack is empty)")
        stack[-count:] = [tuple(stack[-count:])]

    return make


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    stack[-1].append(value)


def _appends(stack: list[Any]) -> None:
    values = _since_mark(stack)
    stack[-1].extend(values)


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    _update(stack[-1], [key, value])


def _set_items(stack: list[Any]) -> None:
    values = _since_mark(stack)
    _update(stack[-1], values)


def _update(target: Any, keys_and_values: list[Any]) -> None:
    if not isinstance(target, dict):
        raise PickleError("a damaged pickle (items for what is no dict)")
    for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
        if not isinstance(key, str | int | float | bool | None):
            raise PickleError("a dict whose keys are not plain values")
        target[key] = value


def _dict(stack: list[Any]) -> None:
    values, made = _since_mark(stack), {}
    _update(made, values)
    stack.append(made)


_CONTAINERS: dict[str, Callable[[list[Any]], None]] = {
    "POP": lambda stack: stack.pop() and None,
    "POP_MARK": lambda stack: _since_mark(stack) and None,
    "DUP": lambda stack: stack.append(stack[-1]),
    "LIST": lambda stack: stack.append(_since_mark(stack)),
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "DICT": _dict,
}
