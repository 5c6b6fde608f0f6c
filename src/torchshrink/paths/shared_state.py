"""Finds the tensors that a model's code keeps outside of its model, where all models of a path share them.

That is in attributes of classes, in closures and in globals, as far as the functions of the model's own classes (and
of the loss) name them. Torch's code is known to keep none.
"""

from __future__ import annotations

import builtins
import copy
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, final

import torch
from torch import Tensor, nn

from torchshrink.support.private_torch import version_of

_OPAQUE = (str, bytes, int, float, complex, type(None), type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)
_KNOWN = frozenset(("builtins", "torch", "numpy", "torchshrink", *sys.stdlib_module_names)) - {"__main__"}
_DEEP = 3  # lists in objects in lists
_LONG = 100  # of a longer container only the length is looked at
_LARGE = 1_000_000  # numbers: of a larger tensor no copy is kept
_MOST = 300  # functions and classes that are looked into


def tensors_in(place: str, value: object, depth: int = _DEEP) -> Iterator[tuple[str, object]]:
    """The tensors in a value, each with its place, and of long containers the lengths; not those of modules."""
    if isinstance(value, Tensor):
        yield place, value
        return
    if isinstance(value, (*_OPAQUE, nn.Module)) or depth == 0:
        return
    if isinstance(value, list | tuple | set | frozenset | dict | deque):
        if len(value) > _LONG:
            yield f"len({place})", len(value)
            return
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in items:
            yield from tensors_in(f"{place}[{key!r}]", each, depth - 1)
    else:
        for key, each in getattr(value, "__dict__", {}).items():
            yield from tensors_in(f"{place}.{key}", each, depth - 1)


@final
class SharedState:
    """Remembers what is there, tells whether it has changed, and puts it back.

    Args:
        model: whose classes are looked at.
        loss: likewise, if it is an object, and itself if it is a function.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., object] | None = None) -> None:
        self._roots: list[object] = list(dict.fromkeys(type(module) for module in model.modules()))
        self._own: list[_Slot] = []
        self._roots += self._of_loss(loss)
        self._fixed, self._classes = _reached(self._roots)
        self._before = {slot: _Found(slot) for slot in self._slots()}

    def _of_loss(self, loss: object) -> list[object]:
        if isinstance(loss, FunctionType):
            return [loss]
        if isinstance(loss, MethodType):
            return [loss.__func__, *self._of_loss(loss.__self__)]
        if loss is None or isinstance(loss, type) or not _is_users(type(loss)):
            return []
        held = getattr(loss, "__dict__", {})
        self._own += [_Slot(f"loss.{key}", held, key) for key in held]
        return [type(loss)]

    def _slots(self) -> Iterator[_Slot]:
        yield from self._own
        yield from self._fixed
        for cls in self._classes:  # which may have other attributes by now
            for key, value in tuple(vars(cls).items()):
                if not (key.startswith("__") and key.endswith("__")) and not isinstance(value, FunctionType):
                    yield _Slot(f"{cls.__qualname__}.{key}", cls, key)

    def changed(self) -> str | None:
        """Where the first tensor is that is another one than before, or has other values."""
        return next((place for _, place in self._changes()), None)

    def _changes(self) -> Iterator[tuple[_Slot, str]]:
        for slot in dict.fromkeys((*self._before, *self._slots())):
            known = self._before.get(slot)
            if known is None:
                found = next(tensors_in(slot.place, slot.get()), None)
                if found is not None:
                    yield slot, found[0]
            elif (place := known.differs(slot)) is not None:
                yield slot, place

    def put_back(self) -> None:
        """Leave it as it was found: the tensors, and the values of those that are not very large."""
        for slot, _ in tuple(self._changes()):
            known = self._before.get(slot)
            if known is None:
                slot.put(_ABSENT)
            else:
                known.put_back(slot)


_ABSENT = object()


@dataclass(frozen=True, eq=False)
class _Slot:
    """A name that something can be bound to: an attribute of a class, a variable of a closure, a global."""

    place: str
    holder: Any
    key: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Slot) and self.holder is other.holder and self.key == other.key

    def __hash__(self) -> int:
        return hash((id(self.holder), self.key))

    def get(self) -> object:
        if isinstance(self.holder, CellType):
            try:
                return self.holder.cell_contents
            except ValueError:  # nothing is in it yet
                return _ABSENT
        held = vars(self.holder) if isinstance(self.holder, type) else self.holder
        return held.get(self.key, _ABSENT)

    def put(self, value: object) -> None:
        if isinstance(self.holder, CellType):
            if value is _ABSENT:
                del self.holder.cell_contents
            else:
                self.holder.cell_contents = value
        elif isinstance(self.holder, type):
            if value is _ABSENT:
                delattr(self.holder, self.key)
            else:
                setattr(self.holder, self.key, value)
        elif value is _ABSENT:
            self.holder.pop(self.key, None)
        else:
            self.holder[self.key] = value


@final
class _Found:
    """What a slot held."""

    def __init__(self, slot: _Slot) -> None:
        self._value = slot.get()
        self._tensors = dict(tensors_in(slot.place, self._value))
        self._versions = {id(t): _version(t) for t in self._tensors.values()}
        tensors = [t for t in self._tensors.values() if isinstance(t, Tensor)]
        self._copies = [(t, content) for t in tensors if (content := _content(t)) is not None]
        # Not of what is no container: a copy would copy the tensor, or run code of anybody's.
        self._items = copy.copy(self._value) if isinstance(self._value, list | dict | set | deque) else None
        self._attributes = None if isinstance(self._value, (*_OPAQUE, Tensor, nn.Module)) else _attributes(self._value)

    def differs(self, slot: _Slot) -> str | None:
        """Where the first tensor is that is not as it was."""
        now = dict(tensors_in(slot.place, slot.get()))
        for place in self._tensors | now:
            before, after = self._tensors.get(place), now.get(place)
            if before is not after and not (isinstance(after, int) and before == after):
                return place
            if self._versions.get(id(after)) != _version(after):
                return place
        return None

    def put_back(self, slot: _Slot) -> None:
        if slot.get() is not self._value:
            slot.put(self._value)
        if self._items is not None:
            _refill(self._value, self._items)
        attributes = _attributes(self._value) if self._attributes is not None else None
        if attributes is not None and self._attributes is not None:
            _refill(attributes, dict(self._attributes))
        with torch.no_grad():
            for tensor, content in self._copies:
                if self._versions[id(tensor)] != _version(tensor):
                    tensor.copy_(content)
                    self._versions[id(tensor)] = _version(tensor)


def _version(value: object) -> int:
    return version_of(value) if isinstance(value, Tensor) and not value.is_inference() else -1


def _content(value: Tensor) -> Tensor | None:
    if value.numel() > _LARGE:
        return None
    try:
        return value.detach().clone()
    except RuntimeError:  # of a vmap that is over, in which a loss is evaluated row by row
        return None


def _attributes(value: object) -> MutableMapping[str, Any] | None:
    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) else None


def _refill(container: Any, items: Any) -> None:
    container.clear()
    if isinstance(container, list | deque):
        container.extend(items)
    else:
        container.update(items)


def _is_users(what: Any) -> bool:
    return str(getattr(what, "__module__", None)).split(".")[0] not in _KNOWN


def _reached(roots: list[object]) -> tuple[list[_Slot], list[type]]:
    """The variables and the classes that functions of these classes name, and the functions that they name in turn."""
    slots: dict[_Slot, None] = {}
    classes: dict[type, None] = {}
    functions: dict[FunctionType, None] = {}
    waiting = deque(roots)
    while waiting and len(classes) + len(functions) < _MOST:
        what: Any = waiting.popleft()
        what = getattr(what, "__func__", None) or getattr(what, "fget", None) or what  # of methods and properties
        if isinstance(what, type):
            for cls in what.__mro__:
                if _is_users(cls) and cls not in classes:
                    classes[cls] = None
                    waiting.extend(v for v in vars(cls).values() if isinstance(v, _CODE))
        elif isinstance(what, FunctionType) and _is_users(what) and what not in functions:
            functions[what] = None
            for slot in _variables(what):
                slots[slot] = None
                if isinstance(value := slot.get(), FunctionType | MethodType | type):
                    waiting.append(value)
    return list(slots), list(classes)


_CODE = (FunctionType, staticmethod, classmethod, property)


def _variables(function: FunctionType) -> Iterator[_Slot]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield _Slot(f"{name} (in a closure)", cell, name)
    names = _names(function.__code__)
    for name in names:
        if name in vars(builtins):
            continue
        yield _Slot(f"{name} (a global of {function.__module__})", function.__globals__, name)
        module = function.__globals__.get(name)
        if isinstance(module, ModuleType) and module.__name__.split(".")[0] not in _KNOWN:
            yield from (_Slot(f"{name}.{each}", vars(module), each) for each in names)


def _names(code: CodeType) -> list[str]:
    """Those of globals, and of attributes, in a function and in the functions that are made in it."""
    inner = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names(each)]
    return list(dict.fromkeys((*code.co_names, *inner)))
