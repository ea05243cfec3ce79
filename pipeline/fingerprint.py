"""What code a stage can reach, as a digest, by reading the sources: nothing is imported or run.

So one process tells whether the code of another one changed, and pays for none of its libraries. Imports count wherever
they stand in a file, since a stage imports what is heavy inside its functions. Not covered: what a name built at run
time imports (``importlib.import_module``), files that code reads besides Python's own, and the text of docstrings,
which this project shows as help only.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import resolve_name
from pathlib import Path
from typing import Final

from pipeline.digests import digest_json
from pipeline.errors import CodeError
from pipeline.paths import PROJECT_ROOT

PACKAGES: Final = frozenset({"pipeline", "training", "assets"})
"""The project's own; named, since the folder that holds them also holds every library where they are installed."""

_BROUGHT_ALONG: Final[Mapping[str, tuple[str, ...]]] = {
    "transformers": ("tokenizers", "safetensors", "jinja2"),  # token ids, weights as read, chat templates
    "peft": ("accelerate",),  # places weights
    "trl": ("accelerate",),  # the optimiser's steps and precision
}
"""Libraries that shape results without being imported by name."""
_BYSTANDERS: Final = frozenset({"tqdm", "dagster_pipes"})
"""Libraries that are imported and shape no result: they show how far it is."""


_POSITIONAL: Final = frozenset({"ctx", "kind"})
"""Fields of a tree that follow from where a node stands, or say how a string was written."""


@dataclass(frozen=True)
class Code:
    """The code that some modules can reach."""

    digest: str
    """Of the reached modules' names and syntax trees."""
    modules: tuple[str, ...]
    """The project's modules among them, sorted."""
    imported: tuple[str, ...]
    """Top-level packages that they import besides the project's own, sorted."""
    folder: Path = field(compare=False, repr=False)
    """Folder of the project's packages."""

    def is_current(self) -> bool:
        """Return whether the files still hold this code."""
        try:
            now = [(name, _read.__wrapped__(self.folder, name)) for name in self.modules]
        except CodeError:
            return False
        return digest_json([[name, module and module[0]] for name, module in now]) == self.digest

    @property
    def libraries(self) -> Mapping[str, str]:
        """Versions of the distributions that they import, ``absent`` where one is not installed."""
        return _versions(set(self.imported))  # the slower half, which not everybody asks for


def reachable_code(roots: Sequence[str], root_folder: Path = PROJECT_ROOT) -> Code:
    """Return the code that modules and all they import consist of.

    Comments, docstrings (of attributes too) and formatting do not count. Files are read once per process; whoever runs
    code that may have been edited meanwhile asks ``Code.is_current``.

    Args:
        roots: Modules to start from, dotted (``pipeline.pool.ingest``); their top-level packages are the project's.
        root_folder: Folder of the project's packages.

    Raises:
        CodeError: A root is not there, or a file is not Python.
    """
    return _reachable_code(tuple(roots), root_folder.resolve())


@cache
def _reachable_code(roots: tuple[str, ...], folder: Path) -> Code:
    if missing := [root for root in roots if _read(folder, root) is None]:
        raise CodeError(f"no module {missing[0]!r} in {folder}; a stage's code is named like pipeline.pool.ingest")
    own = PACKAGES | {root.partition(".")[0] for root in roots}
    reached: dict[str, str] = {}
    external: set[str] = set()
    seen: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if (top := name.partition(".")[0]) not in own:
            external.add(top)
            continue
        if parent := name.rpartition(".")[0]:
            pending.append(parent)  # its __init__.py runs first; or the module of a symbol
        if module := _read(folder, name):
            reached[name], imported = module
            pending += imported
    return Code(digest_json(sorted(reached.items())), tuple(sorted(reached)), tuple(sorted(external)), folder)


@cache
def _read(folder: Path, name: str) -> tuple[str, tuple[str, ...]] | None:
    """Return a module's digest and what it may import; None where there is no such file, as for a symbol."""
    path = folder.joinpath(*name.split("."))
    package = path / "__init__.py"
    file = package if package.is_file() else path.with_name(f"{path.name}.py")
    if not file.is_file():
        return None
    try:
        tree = ast.parse(file.read_bytes())
        imported = tuple(_imports(tree, name if file == package else name.rpartition(".")[0]))
    except (SyntaxError, ValueError, ImportError) as error:
        raise CodeError(f"{file} cannot be read as Python: {error}; mend it") from error
    return sha256(_dump(tree).encode()).hexdigest(), imported


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield absolute names: of modules, and of what is taken from one, a module or a symbol under its name."""
    pending: list[ast.AST] = [tree]
    while pending:
        match pending.pop():
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                base = resolve_name("." * level + (module or ""), package)
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.If(ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), _, orelse):
                pending += orelse
            case ast.expr():
                pass  # holds no statement
            case node:
                pending += ast.iter_child_nodes(node)


def _dump(node: object) -> str:
    """Return a tree as text, alike for every version of Python: ``ast.dump`` treats empty fields by version."""
    if isinstance(node, ast.AST):
        texts = []  # plain loops: every start of Dagster waits for them
        for field in node._fields:
            value = None if field in _POSITIONAL else getattr(node, field, None)
            if value is not None and value != []:
                texts.append(f"{field}={_dump(value)}")
        return f"{type(node).__name__}({','.join(texts)})"
    if isinstance(node, list):
        return f"[{','.join([_dump(item) for item in node if not _is_docstring(item)])}]"
    return ascii(node)


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _versions(names: set[str]) -> dict[str, str]:
    wanted = names - sys.stdlib_module_names - _BYSTANDERS
    wanted |= {other for name in wanted for other in _BROUGHT_ALONG.get(name, ())}
    return dict(sorted(pair for name in wanted for pair in _installed(name)))


@cache
def _installed(name: str) -> tuple[tuple[str, str], ...]:
    """Return the distributions that hold a top-level package (several share a namespace) with their versions."""
    try:
        metadata = distribution(name).metadata
    except PackageNotFoundError:
        holders = sorted(set(_holders().get(name, ())))
        return tuple((holder, distribution(holder).version) for holder in holders) or ((name, "absent"),)
    return ((metadata["Name"], metadata["Version"]),)


_holders = cache(packages_distributions)  # reads the file lists of all that is installed
