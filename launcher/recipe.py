"""What an environment for a run must hold, as the data that `remote` builds it from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

PYTHON = "3.11"
# What is fetched where none is new enough: every pinned wheel is there for it.
OWN_PYTHON = "3.12"
# Lowest versions that the jobs were written against; what is built anew gets the tested ones of the constraints.
REQUIREMENTS = (
    "torch>=2.6",
    "transformers>=5.20,<6",
    "peft>=0.21,<0.22",
    "accelerate>=1.15",
    "scikit-learn>=1.6",
    "safetensors>=0.6",
    "numpy>=2.0",
    "huggingface_hub>=2.4",
)
HOME_REQUIREMENTS = (*REQUIREMENTS, "matplotlib>=3.10", "pyarrow>=20")
"""At home the report is drawn, and predictions become Parquet."""

# Of PyPI's wheels, which every mirror has: 2.13 is built for CUDA 13.0, 2.10 for 12.8, 2.6 for 12.4.  A driver runs
# what was built for its own CUDA and, within one major version, for a newer one (docs.nvidia.com, CUDA compatibility).
TORCH_ROWS = (((580,), "torch==2.13.0"), ((570,), "torch==2.10.0"), ((525,), "torch==2.6.0"))
TORCH_PLAIN = "torch==2.13.0"

# All that the requirements require, but torch and what nothing else asks for; a test takes it from the metadata.
BESIDE_TORCH = (
    "accelerate", "annotated-doc", "annotated-types", "anyio", "click", "cloudpickle", "colorama", "filelock", "fsspec",
    "h11", "hf-xet", "httpcore2", "httpx2", "huggingface_hub", "idna", "joblib", "markdown-it-py", "mdurl", "narwhals",
    "numpy", "packaging", "peft", "psutil", "pydantic", "pydantic_core", "Pygments", "PyYAML", "regex", "rich",
    "safetensors", "scikit-learn", "scipy", "shellingham", "threadpoolctl", "tokenizers", "tqdm", "transformers",
    "truststore", "typer", "typing-inspection", "typing_extensions",
)  # fmt: skip
BESIDE_TORCH_AT_HOME = (
    *BESIDE_TORCH, "contourpy", "cycler", "fonttools", "kiwisolver", "matplotlib", "pillow", "pyarrow",
    "pyparsing", "python-dateutil", "tzdata",
)  # fmt: skip
# What a tracker requires that is not there anyway; a test takes it from the metadata, too.
TRACKERS = {"tensorboard": "tensorboard>=2.18", "wandb": "wandb>=0.19"}
BESIDE_FOR_TRACKER = {
    "tensorboard": (
        "absl-py", "grpcio", "Markdown", "MarkupSafe", "pillow", "protobuf", "setuptools", "tensorboard",
        "tensorboard-data-server", "Werkzeug",
    ),
    "wandb": (
        "certifi", "charset-normalizer", "cwevals", "distro", "googleapis-common-protos", "httpcore", "httpx",
        "opentelemetry-api", "opentelemetry-exporter-http-transport", "opentelemetry-exporter-otlp-common",
        "opentelemetry-exporter-otlp-proto-common", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-proto",
        "opentelemetry-sdk", "opentelemetry-semantic-conventions", "platformdirs", "protobuf", "requests", "sniffio",
        "urllib3", "wandb", "xxhash",
    ),
}  # fmt: skip
UV = "uv==0.13.9"

PROOF = """
import json, os, sys
from importlib.metadata import PackageNotFoundError, requires, version
from packaging.requirements import Requirement
asked = json.loads(sys.argv[1])
for name in {names!r}:
    for line in requires(name) or ():
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({{"extra": ""}}):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            sys.exit("%s requires %s, which is missing" % (name, need))
        if not need.specifier.contains(found, prereleases=True):
            sys.exit("%s requires %s, here is %s" % (name, need, found))
import torch
if asked["kept"] and torch.__file__ != asked["kept"]:
    sys.exit("torch comes from %s instead of %s" % (torch.__file__, asked["kept"]))
device = "cuda" if asked["gpu"] else "cpu"
if asked["gpu"] and not torch.cuda.is_available():
    sys.exit("torch %s sees no GPU" % torch.__version__)
product = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
if float(product.sum()) != 64.0**3:
    sys.exit("a product of matrices is wrong on " + device)
import {modules}
# Old packages of an image that peft finds are refused only when LoRA is laid around a layer.
lora = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)).to(device), peft.LoraConfig(target_modules=["0"]))
lora(torch.ones(2, 8, device=device)).sum().backward()
if not any(part.grad is not None for name, part in lora.named_parameters() if "lora_B" in name):
    sys.exit("LoRA gets no gradient")
for module in (torch, {modules}):
    print("%s %s from %s" % (module.__name__, module.__version__, os.path.dirname(module.__file__)))
"""
MODULES = {"scikit-learn": "sklearn"}


def constraints() -> list[str]:
    """The pinned lines of the one constraints file."""
    lines = resources.files("launcher").joinpath("constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def recipe(
    *,
    at_home: bool = False,
    exactly: Mapping[str, str] | None = None,
    trackers: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """The recipe for a host, or for this machine; `exactly` are versions, by distribution, that it must be.

    `more` are `candidates` and `wheels`, as `remote` knows them.
    """
    requirements = (*(HOME_REQUIREMENTS if at_home else REQUIREMENTS), *(TRACKERS[name] for name in trackers))
    exact = {name.lower(): version for name, version in (exactly or {}).items()}
    pinned = [_pinned(line, exact) for line in constraints()]
    beside = {_canonical(name) for name in (BESIDE_TORCH_AT_HOME if at_home else BESIDE_TORCH)}
    beside |= {_canonical(name) for tracker in trackers for name in BESIDE_FOR_TRACKER[tracker]}
    names = [_name(one) for one in requirements]
    return {
        "python": _numbers(PYTHON),
        "needs": [_need(one, exact) for one in requirements],
        "kept": {"name": "torch", "module": "torch", "rows": [list(row) for row in TORCH_ROWS], "plain": TORCH_PLAIN},
        "beside": [line for line in pinned if _canonical(_name(line)) in beside],
        "requirements": [one for one in requirements if _name(one) != "torch"],
        # Which torch it is says its row.
        "constraints": [line for line in pinned if _name(line) != "torch"],
        "proof": PROOF.format(
            names=names, modules=", ".join(MODULES.get(name, name) for name in names if name != "torch")
        ),
        "uv": UV,
        "own_python": OWN_PYTHON,
        "gpu": not at_home,
        **more,
    }


def allows(name: str, version: str) -> bool:
    """Whether the jobs were written against this version of a library."""
    for requirement in HOME_REQUIREMENTS:
        if _name(requirement) == name:
            _, low, below = _need(requirement, {})
            return low <= _numbers(version) and (not below or _numbers(version) < below)
    return False


def _need(requirement: str, exact: Mapping[str, str]) -> list[Any]:
    name = _name(requirement)
    if name in exact:
        version = _numbers(exact[name])
        return [name, version, [*version[:-1], version[-1] + 1]]
    limits = dict(re.findall(r"(>=|<)([0-9.]+)", requirement))
    return [name, _numbers(limits.get(">=", "0")), _numbers(limits["<"]) if "<" in limits else []]


def _pinned(line: str, exact: Mapping[str, str]) -> str:
    name = _name(line)
    return f"{name}=={exact[name.lower()]}" if name.lower() in exact else line


def _name(requirement: str) -> str:
    return re.split(r"[<>=]", requirement)[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
