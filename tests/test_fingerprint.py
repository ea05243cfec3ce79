"""What counts as a stage's code: all that it can import and run, and nothing else."""

import os
import subprocess
import sys
from textwrap import dedent

import pytest

from pipeline.errors import CodeError
from pipeline.fingerprint import reachable_code
from pipeline.paths import PROJECT_ROOT


@pytest.fixture
def reach(tmp_path_factory):
    """Write ``{path: source}`` into a new folder and return the code reached from ``pipeline.a``."""

    def reach(files, root="pipeline.a"):
        folder = write(tmp_path_factory.mktemp("tree"), files)
        return reachable_code([root], folder)

    return reach


def write(folder, files):
    for path, source in {"pipeline/__init__.py": "", **files}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source), encoding="utf-8")
    return folder


def run(code, **environment):
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


PLAIN = '''
    """A module."""
    LIMIT = 3
    """An attribute."""


    class Box:
        """A class."""

        size: int = 4
        """In pixels."""

        def grow(self, by):
            """Grow."""
            # by how much
            return self.size + by * LIMIT, f"grown by {by}", "text", None
'''
REWRITTEN = '''
    """Another text,

    on several lines."""
    LIMIT = (3)  # a comment
    "Quite another"
    class Box:
        "The box."
        size: int=4
        def grow(
            self,
            by,
        ):
            """Enlarge."""
            return (self.size+by*LIMIT), f'grown by {by}', 'te' "xt", None
'''


def test_comments_docstrings_and_formatting_do_not_count(reach):
    assert reach({"pipeline/a.py": PLAIN}).digest == reach({"pipeline/a.py": REWRITTEN}).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("by * LIMIT", "by - LIMIT"),
        ("grow(self, by)", "grow(self, by=None)"),
        ("grow(self, by)", "grow(self, *by)"),
        ("size: int", "size: float"),
        ('"text"', '"texts"'),
        ("grown by {by}", "grown by {by:d}"),
        (", None\n", ", False\n"),
        (", None\n", "\n"),
        ("            # by how much", "            by += 1"),
        ("class Box", "class Crate"),
    ],
)
def test_code_counts(reach, old, new):
    assert PLAIN.count(old) == 1
    assert reach({"pipeline/a.py": PLAIN}).digest != reach({"pipeline/a.py": PLAIN.replace(old, new)}).digest


@pytest.mark.parametrize(
    "source",
    [
        "import pipeline.b",
        "import os, pipeline.b as other",
        "from pipeline import b",
        "from pipeline.b import name",
        "from . import b",
        "from .b import name",
        "from .b import *",
        "def late():\n    from pipeline.b import name",
        "class Holder:\n    def late(self):\n        with open('x'):\n            import pipeline.b",
        "try:\n    pass\nexcept ValueError:\n    import pipeline.b",
        "match 1:\n    case 1:\n        import pipeline.b",
        "async def late():\n    import pipeline.b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import pipeline.b",
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import pipeline.b",
    ],
)
def test_what_may_be_imported_counts(reach, source):
    tree = {"pipeline/a.py": source, "pipeline/b.py": "name = 1"}
    code = reach(tree)
    assert code.modules == ("pipeline", "pipeline.a", "pipeline.b")
    assert reach({**tree, "pipeline/b.py": "name = 2"}).digest != code.digest


@pytest.mark.parametrize(
    "guard", ["if TYPE_CHECKING:", "if typing.TYPE_CHECKING:", "if 1 > 2:\n    pass\nelif TYPE_CHECKING:"]
)
def test_imports_for_type_checkers_do_not_count(reach, guard):
    source = f"import typing\nfrom typing import TYPE_CHECKING\n{guard}\n    import pipeline.b, torch"
    code = reach({"pipeline/a.py": source, "pipeline/b.py": ""})
    assert code.modules == ("pipeline", "pipeline.a")
    assert not code.libraries


def test_what_is_not_reached_does_not_count(reach):
    tree = {"pipeline/a.py": "from pipeline.b import name", "pipeline/b.py": "name = 'import pipeline.c'"}
    code = reach({**tree, "pipeline/c.py": "import torch"})
    assert code.modules == ("pipeline", "pipeline.a", "pipeline.b")
    assert code == reach({**tree, "pipeline/c.py": "x = 1", "training/__init__.py": "", "notes.txt": ""})


def test_the_init_files_on_the_way_count(reach):
    tree = {
        "pipeline/__init__.py": "from pipeline.d import name",
        "pipeline/d.py": "name = 1",
        "pipeline/a.py": "def late():\n    import pipeline.room.inner.leaf",
        "pipeline/room/__init__.py": "from .rules import RULES",
        "pipeline/room/rules.py": "RULES = ()",
        "pipeline/room/inner/leaf.py": "",  # in a folder without __init__.py
    }
    room = ("pipeline.room", "pipeline.room.inner.leaf", "pipeline.room.rules")
    assert reach(tree).modules == ("pipeline", "pipeline.a", "pipeline.d", *room)
    for path in ("pipeline/__init__.py", "pipeline/room/__init__.py"):
        assert reach({**tree, path: tree[path] + "\nx = 1"}).digest != reach(tree).digest


def test_relative_imports_start_at_the_package(reach):
    tree = {
        "pipeline/a.py": "from .room.deep import leaf",
        "pipeline/room/__init__.py": "",
        "pipeline/room/near.py": "",
        "pipeline/room/deep/__init__.py": "from . import side",
        "pipeline/room/deep/side.py": "",
        "pipeline/room/deep/leaf.py": "from .. import near\nfrom ...b import name",
        "pipeline/b.py": "name = 1",
        "pipeline/near.py": "",
        "pipeline/side.py": "",
    }
    deep = ("pipeline.room.deep", "pipeline.room.deep.leaf", "pipeline.room.deep.side")
    assert reach(tree).modules == ("pipeline", "pipeline.a", "pipeline.b", "pipeline.room", *deep, "pipeline.room.near")


def test_a_symbol_is_not_taken_for_a_module(reach):
    tree = {"pipeline/a.py": "from pipeline.room import thing", "pipeline/room/__init__.py": "thing = 1"}
    assert reach(tree).modules == ("pipeline", "pipeline.a", "pipeline.room")
    assert "pipeline.room.thing" in reach({**tree, "pipeline/room/thing.py": ""}).modules


def test_cycles_end_and_have_one_digest(reach):
    tree = {"pipeline/a.py": "import pipeline.b", "pipeline/b.py": "import pipeline.a"}
    assert reach(tree) == reach(tree, root="pipeline.b")
    assert reach(tree).modules == ("pipeline", "pipeline.a", "pipeline.b")


def test_packages_of_the_project_and_of_the_root_are_followed(reach):
    tree = {
        "extension/a.py": "import pipeline, training.run, extension.b, data",
        "extension/b.py": "",
        "training/run.py": "",
        "data/__init__.py": "",  # no package of the project, as every library is where the project is installed
    }
    code = reach(tree, root="extension.a")
    assert code.modules == ("extension.a", "extension.b", "pipeline", "training.run")
    assert code.libraries == {"data": "absent"}


@pytest.mark.parametrize("root", ["pipeline.missing", "pipeline.a.missing", "absent"])
def test_a_missing_root_is_an_error(reach, root):
    with pytest.raises(CodeError, match=f"no module '{root}' in .*named like"):
        reach({"pipeline/a.py": ""}, root)


@pytest.mark.parametrize("source", ["def late(:", "from ....above import x"])
def test_a_file_that_is_not_python_is_an_error(reach, source):
    with pytest.raises(CodeError, match=r"b\.py cannot be read as Python"):
        reach({"pipeline/a.py": "import pipeline.b", "pipeline/b.py": source})


def test_a_renamed_module_counts(reach):
    first = reach(
        {"pipeline/a.py": "import pipeline.b, pipeline.c", "pipeline/b.py": "x = 1", "pipeline/c.py": "x = 2"}
    )
    swapped = reach(
        {"pipeline/a.py": "import pipeline.b, pipeline.c", "pipeline/b.py": "x = 2", "pipeline/c.py": "x = 1"}
    )
    assert first.digest != swapped.digest


def test_the_digest_is_the_same_elsewhere(tmp_path):
    tree = {"pipeline/a.py": "import pipeline.b, yaml, numpy\n" + dedent(PLAIN), "pipeline/b.py": "names = {'x', 'y'}"}
    here = reachable_code(["pipeline.a"], write(tmp_path / "here", tree))
    there = str(write(tmp_path / "there", tree))
    code = (
        "import pathlib; from pipeline.fingerprint import reachable_code\n"
        f"print(reachable_code(['pipeline.a'], pathlib.Path({there!r})))"
    )
    for seed in ("1", "2"):
        assert run(code, PYTHONHASHSEED=seed) == str(here)


def test_the_digest_is_pinned(reach):
    """Should it change, with this module or a version of Python, every stage of every user runs again."""
    source = """
        def f(x: int = -1, *, y: str | None = u"\\u00e9", **z) -> None:
            return [*x, {**z}, y, f"{x!r:>3}", b"", ...]
    """
    assert reach({"pipeline/a.py": source}).digest == "a2bffe808d68971a1522ce2098c2cc49f6c4f5e62b7c29f0433ae9a4c53b0ac9"


def test_libraries_have_versions(reach):
    source = """
        import json, os.path
        import numpy as np
        import yaml
        from huggingface_hub.errors import HfHubHTTPError
        def late():
            from transformers.utils import logging
            import no_such_library.part
    """
    libraries = reach({"pipeline/a.py": "import pipeline.b", "pipeline/b.py": source}).libraries
    import numpy
    import yaml

    assert libraries["numpy"] == numpy.__version__
    assert libraries["PyYAML"] == yaml.__version__
    assert libraries["no_such_library"] == "absent"
    brought_along = {"tokenizers", "safetensors", "Jinja2"}
    assert set(libraries) == {"numpy", "PyYAML", "huggingface_hub", "transformers", "no_such_library"} | brought_along


def test_all_distributions_of_a_namespace_count(tmp_path):
    for name in ("first", "second"):
        write(
            tmp_path / "site",
            {
                f"shared_name/{name}.py": "",
                f"{name}-1.2.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
                f"{name}-1.2.dist-info/RECORD": f"shared_name/{name}.py,,\n",
            },
        )
    write(tmp_path, {"pipeline/a.py": "import shared_name.first"})
    code = (
        "import pathlib, sys; from pipeline.fingerprint import reachable_code\n"
        f"sys.path.append({str(tmp_path / 'site')!r})\n"
        f"print(reachable_code(['pipeline.a'], pathlib.Path({str(tmp_path)!r})).libraries)"
    )
    assert run(code) == "{'first': '1.2', 'second': '1.2'}"


def test_the_training_is_read_without_its_libraries():
    code = (
        "import sys; from pipeline.fingerprint import reachable_code\n"
        "code = reachable_code(['training.run', 'training.objectives.opsd'])\n"
        "assert {'training', 'training.run', 'training.objectives', 'pipeline.models'} <= set(code.modules)\n"
        "assert {'torch', 'trl', 'peft', 'accelerate', 'tokenizers'} <= set(code.libraries), code.libraries\n"
        "assert 'absent' not in {code.libraries[name] for name in ('torch', 'trl', 'peft', 'accelerate')}\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'trl', 'transformers', 'training', 'numpy', 'polars'}, loaded"
    )
    run(code)


def test_a_room_reaches_what_it_uses_only():
    code = reachable_code(["pipeline.answers.extract"])
    assert {"pipeline", "pipeline.answers", "pipeline.answers.options", "pipeline.answers.values"} <= set(code.modules)
    assert not {"pipeline.chain", "pipeline.stage", "pipeline.models"} & set(code.modules)
    assert not {"torch", "transformers"} & set(code.libraries)
    assert reachable_code(["pipeline.answers.extract"]) is code
