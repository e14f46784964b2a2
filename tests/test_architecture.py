"""The structure, walked: imports go downward, click and print stay in the command line, commands are documented."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from launcher.cli import evaluate_main, launch  # noqa: F401  (the second is the entry point of setup.cfg)

REPOSITORY = Path(__file__).resolve().parent.parent
ALLOWED = {"jobs": {"jobs"}, "remote": {"remote"}, "launcher": {"launcher", "remote", "jobs"}}
OURS = {"jobs", "remote", "launcher", "tests", "examples", "benchmarks"}
HEAVY = {"torch", "transformers", "peft", "sklearn", "matplotlib", "scipy"}
# The only modules of `jobs` that the command line may import at once; the others would bring torch along.
LIGHT_JOBS = {
    "adapter",
    "checkpoint",
    "checks",
    "spec",
    "run_directory",
    "answering",
    "events",
    "evidence",
    "questions",
    "manifest",
    "own_copy",
    "errors",
    "base_model",
    "base_tensors",
    "hub",
    "atomic",
    "provenance",
    "submission",
    "suite_labels",
    "data",
    "data_check",
    "data_finding",
    "hash_split",
    "label",
    "parquet",
    "safetensors_file",
    "secret_values",
    "table",
    "verification",
}
SCREEN = ("cli.py", "output.py", "options.py", "follow.py", "overview.py", "terminal.py")
# A login in this terminal has no result to put into JSON.
WITHOUT_JSON = {"launch shell", "launch attach"}
# What the laptop and the host do alike: bytes on their way, and the trees they leave and reach.
BOTH_SIDES = (
    "frames", "states", "refused", "tree", "transfer", "target", "atomic", "accelerator", "build_lock", "environment",
    "installer", "interpreter", "narrated", "own_python",
)  # fmt: skip
POSIX_ONLY = {
    "fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "os.fork", "os.forkpty", "os.setsid", "os.killpg",
    "os.getuid", "os.geteuid", "os.getgid", "os.chown", "os.fchmod", "os.getpgid", "os.mkfifo", "os.sync", "os.uname",
    "os.getloadavg", "os.sched_getaffinity", "os.WEXITSTATUS", "signal.SIGKILL", "signal.SIGHUP", "signal.SIGALRM",
    "signal.alarm", "socket.AF_UNIX",
}  # fmt: skip


def sources(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_only_downward(package: str) -> None:
    found = {
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in sources(package)
        for name in imports(parsed(path))
        if name.split(".")[0] in OURS - ALLOWED[package]
    }
    assert found == set()


def test_every_package_is_there_to_be_walked() -> None:
    assert all(len(sources(package)) > 5 for package in ALLOWED)


def test_click_and_print_stay_in_the_command_line() -> None:
    screen = {REPOSITORY / "launcher" / name for name in SCREEN}
    for path in sources("remote") + sources("launcher"):
        if path in screen or path.parent.name in ("commands", "onhost"):
            continue
        tree = parsed(path)
        assert "click" not in {name.split(".")[0] for name in imports(tree)}, path
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in calls, path
    for path in sources("jobs"):
        assert "click" not in {name.split(".")[0] for name in imports(parsed(path))}, path


@pytest.mark.parametrize("path", sources("launcher"), ids=lambda path: path.name)
def test_the_command_line_never_imports_what_is_heavy(path: Path) -> None:
    names = set(imports(parsed(path)))
    assert not {name.split(".")[0] for name in names} & HEAVY
    jobs_modules = {name.split(".")[1] for name in names if name.startswith("jobs.")}
    assert jobs_modules <= LIGHT_JOBS


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def laptop_side() -> list[Path]:
    """Everything that runs on a Windows laptop: all of launcher, and remote but for the host's side and the host."""
    return (
        sources("launcher")
        + [path for path in sources("remote") if path.parent.name != "onhost" and path.name != "embedded.py"]
        + [REPOSITORY / "remote" / "onhost" / name for name in ("__init__.py", *(f"{one}.py" for one in BOTH_SIDES))]
    )


class NotOnWindows(ast.NodeTransformer):
    """Drops what only runs elsewhere: the else branch of `if os.name == "nt"`."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if ast.unparse(node.test) in ("os.name == 'nt'", "sys.platform == 'win32'"):
            node.orelse = []
        return self.generic_visit(node)


@pytest.mark.parametrize("path", laptop_side(), ids=lambda path: path.name)
def test_nothing_on_the_laptop_is_posix_only(path: Path) -> None:
    tree = NotOnWindows().visit(parsed(path))
    used = set(imports(tree)) | {_dotted(node) for node in ast.walk(tree)}
    assert not used & POSIX_ONLY


def test_the_laptop_side_imports_nothing_else_from_the_host_side() -> None:
    found = {
        name
        for path in laptop_side()
        for name in imports(parsed(path))
        if name.startswith("remote.onhost.") and name.split(".")[2] not in BOTH_SIDES
    }
    assert found == set()


def commands(group: click.Group = launch, prefix: str = "launch") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_help_an_example_and_a_place_in_the_readme(name: str, command: click.Command) -> None:
    assert command.help
    assert f"Example: {name}" in command.help
    assert name in (REPOSITORY / "README.md").read_text("utf-8")
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert undocumented == []
    assert ("as_json" in {parameter.name for parameter in command.params}) == (name not in WITHOUT_JSON)


def test_setup_cfg_and_the_recipe_name_the_same_libraries() -> None:
    import configparser

    from launcher import recipe

    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    train = {line for line in config["options.extras_require"]["train"].splitlines() if line}
    assert train <= set(recipe.HOME_REQUIREMENTS)
    pinned = {line.split("==")[0].lower() for line in recipe.constraints()}
    named = {line.split(">=")[0].split(">")[0].lower() for line in recipe.HOME_REQUIREMENTS}
    assert named <= pinned
    assert sys.version_info >= tuple(int(part) for part in recipe.PYTHON.split("."))
