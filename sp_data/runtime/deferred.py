"""Import a package without the heavy modules that it imports but that are not needed yet.

    with deferred("open_clip"):
        from dalle2_pytorch import train_configs     # says: from open_clip import list_pretrained
    train_configs.list_pretrained                    # stands for open_clip.list_pretrained
    train_configs.list_pretrained()                  # imports open_clip, and calls it
    import open_clip                                 # the real one, whether or not it was used before

Inside the block a deferred module, and each module below it, is a `DeferredModule`, whose names are `DeferredName`s.
The first use of one (a call, an attribute, a base class) imports the real module. `isinstance` does not: while nothing
has imported the real module, nothing can be an instance of its classes. After the block nothing of it is left in
sys.modules. importlib.util.LazyLoader would not do: `from x import name` already makes it import x.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Union


class DeferredName:
    """`name` of the module `module_name`, which is imported when the name is first used."""

    def __init__(self, module_name: str, name: str) -> None:
        self._module_name = module_name
        self._name = name

    def _real(self) -> Any:
        return getattr(_real_module(self._module_name), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            # Whoever looks for these inspects objects and uses none.
            raise AttributeError(attribute)
        return getattr(self._real(), attribute)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return _is_real(sys.modules.get(self._module_name)) and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: Any) -> bool:
        return _is_real(sys.modules.get(self._module_name)) and issubclass(subclass, self._real())

    def __or__(self, other: Any) -> Any:
        # Only annotations have one.
        return Union[self, other]  # noqa: UP007

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007

    def __repr__(self) -> str:
        return f"<deferred {self._module_name}.{self._name}>"


class DeferredModule(ModuleType):
    """Stands for a module that is imported when one of its names is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} is deferred and has no {name!r} yet")
        real = sys.modules.get(self.__name__)
        return getattr(real, name) if _is_real(real) else DeferredName(self.__name__, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a `DeferredModule` for each of `roots` that is installed, and for every name below them."""

    def __init__(self, roots: set[str]) -> None:
        self.roots = roots
        self.is_suspended = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        root = next((root for root in self.roots if name == root or name.startswith(f"{root}.")), None)
        if self.is_suspended or root is None or _is_real(sys.modules.get(root)):
            return None
        if name == root and importlib.machinery.PathFinder.find_spec(name, path) is None:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return DeferredModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """A deferred module has nothing to run."""


@contextlib.contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Within the block, `import NAME` imports nothing until something of the module is used.

    Names that are imported already, or not installed, are as they would be without the block. What is imported for the
    first time within the block keeps working after it.
    """
    finder = _Finder(set(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget_deferred()


def _is_real(module: ModuleType | None) -> bool:
    return module is not None and not isinstance(module, DeferredModule)


def _real_module(name: str) -> ModuleType:
    """Import the module, and whatever it imports, without deferring anything: it may need all of it at once."""
    finders = [finder for finder in sys.meta_path if isinstance(finder, _Finder) and not finder.is_suspended]
    for finder in finders:
        finder.is_suspended = True
    _forget_deferred()
    try:
        return importlib.import_module(name)
    finally:
        for finder in finders:
            finder.is_suspended = False


def _forget_deferred() -> None:
    """Take every deferred module out of sys.modules, so that the next import looks for it again."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, DeferredModule):
            del sys.modules[name]
            package, _, child = name.rpartition(".")
            # Python has set a submodule as an attribute of its package.
            if package in sys.modules and vars(sys.modules[package]).get(child) is module:
                delattr(sys.modules[package], child)
