"""Digest of a module's code and of all it imports from its package: what a stage's bytes can depend on.

Comments, docstrings, layout, and the fields of configuration classes (their values are in the tracked settings) are
left out. Imports inside functions count, and so does a string that names a module, because commands import lazily.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

INFRASTRUCTURE = ("errors", "atomic", "paths", "cli", "stages", "stages_lock", "code_digest", "provenance", "config")
"""Modules no output byte depends on, or (configuration) only through settings that are tracked as values."""


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
        self._trees: dict[str, ast.Module] = {}
        self._digests: dict[str, str] = {}

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

    def digest(self, module: str, left_out: tuple[str, ...] = ()) -> str:
        """Return the sha256 over the code of a module's closure, hex."""
        total = hashlib.sha256()
        for name in sorted(self.closure(module, left_out)):
            total.update(f"{name} {self._digest_of(name)}\n".encode())
        return total.hexdigest()

    def closure(self, module: str, left_out: tuple[str, ...] = ()) -> set[str]:
        """Return a module and all modules of the package it imports, directly or not."""
        skipped = (*self.left_out, *left_out)
        found: set[str] = set()
        todo = [module]
        while todo:
            name = todo.pop()
            if name in found or self.path(name) is None or any(name == s or name.startswith(f"{s}.") for s in skipped):
                continue
            found.add(name)
            todo += self.imports(name)
            parent = name.rpartition(".")[0]
            if parent and parent != self.package:  # importing a module runs its package's __init__
                todo.append(parent)
        return found

    def imports(self, module: str) -> list[str]:
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
        return [name for name in found if self.exists(name) and name != self.package]

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
            text = ast.dump(self._tree(module), include_attributes=False)
            self._digests[module] = hashlib.sha256(text.encode()).hexdigest()
        return self._digests[module]


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
