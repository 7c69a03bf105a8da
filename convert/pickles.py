"""Reads pickles without running anything: what a pickle would call becomes a value to look at.

A pickle is a program for a small stack machine, whose instructions `pickletools` decodes. Two kinds
of them are dangerous: those that look up a class or function, and those that call it. Here the
first push a name and the second an `Inert`, so there is no code to reach.
"""

import pickletools
from typing import Any, NamedTuple, Protocol

LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
"""Instructions that push their own argument."""

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PLAIN = (str, int, float, bytes, type(None))


class Symbol(NamedTuple):
    """The name of a class or function, which is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


PERSISTENT = Symbol("pickle", "persistent id")
"""Makes what the pickle's owner keeps elsewhere: a storage in PyTorch's files."""

KEY = Symbol("pickle", "key")
EXTENSION = "copyreg extension"


class Inert(dict):
    """What a pickle would have made by a call; holds the entries that the pickle puts into it.

    Attributes:
        maker: what would have been called: a `Symbol`, or another value of the pickle.
        args: the arguments.
        state: what would have been handed to `__setstate__`, None if nothing.
        elements: what would have been appended.
    """

    __slots__ = ("maker", "args", "state", "elements")

    def __init__(self, maker: Any, args: Any = ()):
        super().__init__()
        self.maker = maker
        self.args: tuple[Any, ...] = args if isinstance(args, tuple) else ()
        self.state: Any = None
        self.elements: list[Any] = []

    def __hash__(self) -> int:  # by identity, as the entries may be nested without end
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<{self.kind}>"

    @property
    def kind(self) -> str:
        """The class or function by its dotted name."""
        named = self.maker
        if self.args and isinstance(named, Symbol) and named.module in ("copyreg", "copy_reg"):
            named = self.args[0]
        if isinstance(named, Inert) and named.maker is PERSISTENT:  # a class with its source
            inner = named.args[0]
            named = inner[1] if isinstance(inner, tuple) and len(inner) > 1 else named
        return str(named) if isinstance(named, Symbol) else "object"


class Readable(Protocol):
    """What pickles are read from: a file in memory or mapped, so that no length can lie."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes."""
        ...

    def readline(self) -> bytes:
        """To the end of the line."""
        ...


class Pickled(NamedTuple):
    """What a pickle holds.

    Attributes:
        value: plain values, lists, tuples, dicts, `Symbol`s and `Inert`s; sets are lists.
        persistent: every persistent id, in the pickle's order.
    """

    value: Any
    persistent: list[Any]


def load(file: Readable) -> Pickled:
    """Reads one pickle; the file stands behind it then.

    Raises:
        Exception: any, where the bytes are no pickle.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):  # pyright: ignore[reportArgumentType]
        machine.step(opcode.name, argument)
    return Pickled(machine.stack.pop(), machine.persistent)


class _Machine:
    def __init__(self):
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what stands under each mark
        self.memo: dict[int, Any] = {}
        self.persistent: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        """Carries out one instruction."""
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif not (self._collect(name) or self._make(name, argument)):
            raise ValueError(f"the instruction {name} has no place in a file")

    def _collect(self, name: str) -> bool:
        """Marks, lists, tuples and dicts."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "POP" if stack:
                stack.pop()
            case "POP" | "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "LIST" | "FROZENSET":
                self._push(self._marked())
            case "TUPLE":
                self._push(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._popped(int(name[-1]))))
            case "DICT":
                items = self._marked()
                self._push({})
                self._set(items)
            case "APPEND":
                self._append(self._popped(1))
            case "APPENDS" | "ADDITEMS":
                self._append(self._marked())
            case "SETITEM":
                self._set(self._popped(2))
            case "SETITEMS":
                self._set(self._marked())
            case _:
                return False
        return True

    def _make(self, name: str, argument: Any) -> bool:
        """Names, and the calls that are not made."""
        match name:
            case "GLOBAL":
                self._push(Symbol(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                module, attribute = self._popped(2)
                if not (isinstance(module, str) and isinstance(attribute, str)):
                    raise ValueError("a class without a name")
                self._push(Symbol(module, attribute))
            case "EXT1" | "EXT2" | "EXT4":
                self._push(Symbol(EXTENSION, str(argument)))
            case "REDUCE" | "NEWOBJ":
                self._push(Inert(*self._popped(2)))
            case "NEWOBJ_EX":
                maker, *arguments = self._popped(3)
                self._push(Inert(maker, tuple(arguments)))
            case "OBJ":
                maker, *arguments = self._marked()
                self._push(Inert(maker, tuple(arguments)))
            case "INST":
                self._push(Inert(Symbol(*argument.split(" ", 1)), tuple(self._marked())))
            case "BUILD":
                (state,) = self._popped(1)
                if isinstance(self.stack[-1], Inert):
                    self.stack[-1].state = state
            case "PERSID" | "BINPERSID":
                ident = argument if name == "PERSID" else self.stack.pop()
                self.persistent.append(ident)
                self._push(Inert(PERSISTENT, (ident,)))
            case _:
                return False
        return True

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _popped(self, count: int) -> list[Any]:
        """The uppermost values, the last one at the end."""
        if len(self.stack) < count:
            raise ValueError("an instruction lacks its values")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _marked(self) -> list[Any]:
        """The values above the last mark, which goes."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.elements if isinstance(target, Inert) else target).extend(values)

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value


def _key(value: Any) -> Any:
    """A key whose hash takes one step: that of nested tuples would overflow the C stack."""
    return value if isinstance(value, (*PLAIN, Symbol, Inert)) else Inert(KEY, (value,))
