"""Makes a host ready before a run costs anything: its environment, and with a spec also data and base model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from jobs.run_directory import new_run_id
from launcher import preflight, submit, wheelhouse
from launcher.app import App
from launcher.errors import LaunchError, RunFailed
from launcher.progress import Note, Observer
from launcher.room import needed
from launcher.untrusted import clean
from launcher.watch import follow
from remote import environments, runs
from remote.environments import Ready

HOW = {
    "image": "a Python that was there, which has everything",
    "reused": "an environment that keeps the image's torch",
    "built": "an environment with everything",
}
# A preparation needs no GPU, and little memory.
WORTH_TELLING = ("disk", "inodes", "workspace", "durable", "python", "clock")


class Detached(LaunchError):
    """The one who watched left; the preparation goes on."""

    code = "interrupted"


@dataclass(frozen=True)
class Prepared:
    """A host that is ready, and the base model that is there."""

    host: str
    environment: Ready
    base: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """For a person."""
        env = self.environment
        lines = [f"{self.host} is ready: {HOW.get(env.how, env.how)}", f"  {env.python}"]
        if self.base:
            lines.append(f"  {self.base}")
        if env.proven_on != "gpu":
            lines.append("  proved without a GPU; the first run that has one tries it before it trains")
        return clean("\n".join(lines))


def prepare(
    app: App, host: str, plan: submit.Plan | None, observer: Observer, *, offline_wheels: bool = False
) -> Prepared:
    """Leave the environment there, and what `plan` needs; with `offline_wheels` no package index is asked there.

    Raises RunFailed where that fails there, Detached after Ctrl-C.
    """
    agent = app.agent(host)
    recipe = submit.recipe_for(agent, plan.submission.spec.report_to if plan else ())
    known = environments.ready(agent, recipe)
    if known is not None and plan is None:
        return Prepared(host, known)
    wheels = wheelhouse.collect(agent, recipe, app.settings.cache, observer) if offline_wheels else ()
    files = (plan.files if plan else ()) + wheels
    size_bytes = sum(file.size_bytes for _, file in files)
    room = partial(needed, agent, recipe, plan)
    report = preflight.look(app, host, send_bytes=size_bytes, send_files=len(files), room=room)
    told = tuple(finding for finding in report.findings if finding.code in WORTH_TELLING)
    preflight.check(preflight.Report(report.host, report.facts, report.profile, told), observer)
    if files:
        submit.push(files, agent, host, observer)
    if plan is None:
        run_id = new_run_id("prepare")
        supervision = submit.supervision(run_id, "prepare", agent, (), wheels=bool(wheels))
        started = runs.submit(agent, supervision, links=submit.links(files), documents={})
    else:
        run_id = plan.submission.run_id
        started = submit.start(plan.with_wheels(wheels), agent, ())
    observer(Note(f"{run_id} prepares {host} in {submit.where(started)}"))
    try:
        state = follow(run_id, agent, observer)
    except KeyboardInterrupt:
        raise Detached("detached; the preparation goes on", hint="the same command again waits for it") from None
    if state.state != "succeeded":
        raise RunFailed(f"{host} is not ready: {state.state} ({state.reason})", hint="the lines above say why")
    known = environments.ready(agent, recipe)
    if known is None:
        raise RunFailed(f"{host} was ready, and is not any more", hint="run the same command again")
    base = "" if plan is None else f"base model {plan.submission.spec.model_name_or_path}"
    return Prepared(host, known, base)
