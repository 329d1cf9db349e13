"""Digest of a module's code and of all it imports from its package: what a stage's bytes can depend on.

Comments, docstrings, layout, and the fields of configuration classes (their values are in the tracked settings) are
left out. Imports inside functions count, and so does a string that names a module, because commands import lazily; an
f-string names every module it can stand for.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

INFRASTRUCTURE = ("errors", "atomic", "paths", "cli", "stages", "stages_lock", "code_digest", "provenance", "config")
"""Modules no output byte depends on, or (configuration) only through settings that are tracked as values."""

DATA = (".html", ".css", ".js", ".json", ".tsv", ".csv", ".txt", ".npz")


class Sources:
    """The source tree of one package.

    Parameters
    ----------
    root : Path
        Folder of the package.
    package : str
        Its name.
    infrastructure : tuple of str
        Modules or sub-packages below it that are left out.
    """

    def __init__(self, root: Path, package: str, infrastructure: tuple[str, ...] = INFRASTRUCTURE) -> None:
        self.root, self.package = root, package
        self.left_out = tuple(f"{package}.{name}" for name in infrastructure)
        self._modules = sorted(self._names())
        self._trees: dict[str, ast.Module] = {}
        self._digests: dict[str, str] = {}

    def _names(self) -> Iterator[str]:
        for file in self.root.rglob("*.py"):
            parts = file.relative_to(self.root).with_suffix("").parts
            yield ".".join((self.package, *(parts[:-1] if parts[-1] == "__init__" else parts)))

    def path(self, module: str) -> Path | None:
        """Return the file of a module of this package, or None."""
        if module != self.package and not module.startswith(f"{self.package}."):
            return None
        base = self.root.joinpath(*module.split(".")[1:])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file() and (module != self.package or candidate.name == "__init__.py"):
                return candidate
        return None

    def exists(self, module: str) -> bool:
        """Return whether a module is there."""
        return self.path(module) is not None

    def digest(self, module: str, not_chosen: tuple[str, ...] = ()) -> str:
        """Return the sha256 over the code of a module's closure, hex."""
        total = hashlib.sha256()
        for name in sorted(self.closure(module, not_chosen)):
            total.update(f"{name} {self._digest_of(name)}\n".encode())
        return total.hexdigest()

    def closure(self, module: str, not_chosen: tuple[str, ...] = ()) -> set[str]:
        """Return a module and all modules of the package it imports, directly or not.

        Parameters
        ----------
        module : str
            Where to start; it counts even if it is infrastructure itself.
        not_chosen : tuple of str
            Packages an f-string could name but does not; a plain import of them still counts.
        """
        found: set[str] = set()
        todo = [module]
        while todo:
            name = todo.pop()
            if name in found or self.path(name) is None or (name != module and _below(name, self.left_out)):
                continue
            found.add(name)
            todo += self.imports(name, not_chosen)
            parent = name.rpartition(".")[0]
            if parent and parent != self.package:  # importing a module runs its package's __init__
                todo.append(parent)
        return found

    def imports(self, module: str, not_chosen: tuple[str, ...] = ()) -> list[str]:
        """Return the modules of the package that a module names anywhere in its code."""
        found: list[str] = []
        for node in ast.walk(self._tree(module)):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found += [name for name in self._matching(node) if not _below(name, not_chosen)]
        return [name for name in found if name in self._modules and name != self.package]

    def _matching(self, node: ast.JoinedStr) -> list[str]:
        parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else "[a-z0-9_]+" for p in node.values]
        if not parts[0].startswith(re.escape(f"{self.package}.")):
            return []
        pattern = re.compile("".join(parts))
        return [name for name in self._modules if pattern.fullmatch(name)]

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        path = self.path(module)
        parts = module.split(".")
        up = node.level - 1 if path is not None and path.name == "__init__.py" else node.level
        return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])

    def _tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            path = self.path(module)
            assert path is not None, module
            self._trees[module] = _Bare().visit(ast.parse(path.read_text(encoding="utf-8")))
        return self._trees[module]

    def _digest_of(self, module: str) -> str:
        if module not in self._digests:
            total = hashlib.sha256(ast.dump(self._tree(module), include_attributes=False).encode())
            path = self.path(module)
            if path is not None and path.name == "__init__.py":  # tables and page templates a package carries
                for data in sorted(path.parent.iterdir()):
                    if data.is_file() and data.suffix in DATA:
                        total.update(f"{data.name} {hashlib.sha256(data.read_bytes()).hexdigest()}\n".encode())
            self._digests[module] = total.hexdigest()
        return self._digests[module]


def _below(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


class _Bare(ast.NodeTransformer):
    """Removes docstrings (any bare string) and the arguments of pydantic ``Field`` calls."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                setattr(node, name, [statement for statement in body if not _is_text(statement)])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            return ast.Call(func=node.func, args=[], keywords=[])
        return self.generic_visit(node)


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
