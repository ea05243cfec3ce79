"""Shared by the tests of sources: every compression that files are read in."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pyarrow as pa
import pytest


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


@pytest.fixture(scope="session", params=COMPRESS)
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def compress(suffix: str) -> Callable[[bytes], bytes]:
    return COMPRESS[suffix]
