"""The architecture's rules that a compiler does not know: who may import whom, and where unsafe code lives.

deny.toml and the crates' clippy.toml check the rest: third-party crates, clocks and threads.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CRATES = ROOT / "crates"

# Arrows point down only (docs/architecture.md).
MAY_DEPEND_ON: dict[str, set[str]] = {
    "aioxide-driver": set(),
    "aioxide-runtime": {"aioxide-driver"},
    "aioxide-redis": {"aioxide-runtime"},
    # What an extension is compiled against: nothing of aioxide itself.
    "aioxide-awaitable-abi": set(),
    "aioxide-awaitable": {"aioxide-awaitable-abi"},
    "aioxide-python": {"aioxide-awaitable-abi", "aioxide-driver", "aioxide-runtime", "aioxide-redis"},
    "bare-echo": {"aioxide-driver"},
    "load-generator": set(),
}


def manifests() -> dict[str, dict[str, object]]:
    paths = [*CRATES.glob("*/Cargo.toml"), *ROOT.glob("benchmarks/*/Cargo.toml")]
    loaded = [tomllib.loads(path.read_text()) for path in paths]
    return {manifest["package"]["name"]: manifest for manifest in loaded}


def dependencies(manifest: dict[str, object]) -> set[str]:
    """Name what a crate depends on, for building and for testing, on any target."""
    tables = [manifest, *manifest.get("target", {}).values()]
    kinds = ("dependencies", "dev-dependencies", "build-dependencies")
    return {name for table in tables for kind in kinds for name in table.get(kind, {})}


def rust_sources(pattern: str = "*/src/**/*.rs") -> list[Path]:
    return sorted(CRATES.glob(pattern))


def test_every_crate_has_its_place_in_the_layers() -> None:
    assert manifests().keys() == MAY_DEPEND_ON.keys()


@pytest.mark.parametrize("crate", sorted(MAY_DEPEND_ON))
def test_a_crate_depends_only_on_the_layers_below_it(crate: str) -> None:
    ours = dependencies(manifests()[crate]) & MAY_DEPEND_ON.keys()
    assert ours <= MAY_DEPEND_ON[crate]


def test_no_layer_below_the_binding_speaks_of_python() -> None:
    speaking_crates = {"aioxide-python", "aioxide-awaitable", "aioxide-awaitable-abi"}
    lower = [path for path in rust_sources() if not speaking_crates & set(path.parts)]
    assert lower
    speaking = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in lower
        for line in path.read_text().splitlines()
        if re.search(r"\b(python|pyo3|gil)\b", line, re.IGNORECASE)
    ]
    assert not speaking


def test_unsafe_code_lives_only_where_the_page_about_it_says() -> None:
    page = (ROOT / "docs/unsafe.md").read_text()
    listed = {
        path
        for pattern in re.findall(r"^- `(crates/[^`]+)`", page, re.MULTILINE)
        for path in ROOT.glob(pattern)
    }
    # Clippy and the workspace's `unsafe_code = "deny"` leave this attribute as the only way in.
    containing = {path for path in rust_sources() if re.search(r"expect\(\s*unsafe_code", path.read_text())}
    assert containing, "the search for unsafe code finds none: it is broken"
    assert sorted(containing - listed) == []


@pytest.mark.parametrize("crate", ["aioxide-runtime", "aioxide-redis"])
def test_what_is_built_on_the_driver_forbids_unsafe_code(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in (CRATES / crate / "src/lib.rs").read_text()


# What a protocol needs of the standard library, which is neither a socket nor a clock nor a task.
PURE_MODULES = {"borrow", "collections", "error", "fmt", "hash", "iter", "mem", "slice", "str"}
IMPURE_MACROS = r"\b(?:e?println?|dbg|thread_local|include\w*|env)!"


def impurities(source: str) -> set[str]:
    """Name what in a file of a protocol could reach the world outside of it."""
    code = re.sub(r"//.*", "", source)
    modules = set(re.findall(r"\b(?:std|core|alloc)::(\w+)", code))
    for group in re.findall(r"\b(?:std|core|alloc)::\{(.*?)\};", code, re.DOTALL):
        modules |= set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{.*?\}", "", group, flags=re.DOTALL)))
    ours = {"std", "core", "alloc", "crate", "super", "self", *re.findall(r"\bmod (\w+)", code)}
    crates = set(re.findall(r"\b(?:use|extern crate) (?:::)?(\w+)", code))
    elsewhere = {f"crate::{name}" for name in re.findall(r"\bcrate::(?!proto\b)(\w+)", code)}
    return (
        modules - PURE_MODULES
        | crates - ours
        | elsewhere
        | set(re.findall(IMPURE_MACROS, code))
        | set(re.findall(r"\basync\b|\.await\b|\baioxide_\w+", code))
    )


def test_protocols_know_no_io_no_clock_and_no_tasks() -> None:
    sources = rust_sources("*/src/proto/**/*.rs")
    assert sources
    found = {path.name: impurities(path.read_text()) for path in sources}
    assert {name: reasons for name, reasons in found.items() if reasons} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("use std::io::{self, Read};", {"io"}),
        ("use std::{fmt::{self, Display}, net::TcpStream};", {"net"}),
        ("let now = std::time::Instant::now();", {"time"}),
        ("use crate::connection::Connection;", {"crate::connection"}),
        ("use aioxide_runtime::sleep;", {"aioxide_runtime"}),
        ("use rustix::net;", {"rustix"}),
        ("async { ready.await }", {"async", ".await"}),
        ('println!("seen");', {"println!"}),
        ("use std::fmt; use super::error::Error; use crate::proto::Value; // std::io", set()),
    ],
)
def test_the_search_for_io_in_protocols_finds_it(source: str, found: set[str]) -> None:
    assert impurities(source) == found


def test_every_rust_file_says_what_it_is_for() -> None:
    silent = [path for path in rust_sources("**/*.rs") if not path.read_text().startswith("//!")]
    assert not silent


def test_the_package_imports_only_itself_and_the_standard_library() -> None:
    sources = sorted((ROOT / "python/aioxide").rglob("*.py"))
    assert sources
    foreign = set()
    for path in sources:
        # The extra `aioxide[redis]`, which nothing outside of it imports.
        known = (
            {"aioxide", "redis"}
            if "redis" in path.relative_to(ROOT / "python/aioxide").parts
            else {"aioxide"}
        )
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            foreign |= {name.partition(".")[0] for name in names} - sys.stdlib_module_names - known
    assert not foreign
