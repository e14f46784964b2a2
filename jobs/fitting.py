"""The optimizer loop: from a model with LoRA around it to the weights that validate best.

Owns steps, schedule, averaging, memory and when to save a checkpoint; knows nothing of files.  Plain PyTorch, because
what makes it fast (rows of like length, a token budget, a batch a thread) and what makes it safe (sentinels, halving,
bitwise resumption) would each work against a ready-made trainer.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from torch.nn import Parameter, functional

from jobs import batches, calibration, inference, memory
from jobs import model as models
from jobs.average import Average
from jobs.checkpoint import Checkpoint, Checkpoints
from jobs.errors import JobError
from jobs.events import EventLog
from jobs.later import Later
from jobs.log_line import say
from jobs.ranks import Ranks
from jobs.reporter import Reporter
from jobs.sentinels import Sentinels
from jobs.spec import AUTO, Spec
from jobs.stopping import Stop, Stopped
from jobs.trackers import Trackers
from jobs.validation import Evaluation, evaluate, evaluation_steps, finite, is_better

SAVE_EVERY_S, SAVE_SHARE = 60.0, 0.02
"""A checkpoint a minute, and less often where saving would take more than this share of the time."""

SMALLEST_BUDGET, PROBE_S = 256, 10.0
WORTH = 1.03
"""A larger budget takes more memory: it has to be so much faster."""


@dataclass(frozen=True)
class Encoded:
    """One split as the model sees it: N rows of token ids, and label_ids (N,)."""

    token_ids: batches.Tokens
    label_ids: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) in tokens."""
        return self.token_ids.lengths


@dataclass
class Fitted:
    """What the loop did; `losses` are (step, mean loss a row of that step), `seconds` what all of it took."""

    steps: int = 0
    done: int = 0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    tokens_per_batch: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    calibration: dict[str, Any] | None = None
    stopped_early: str = ""
    resumed_from: list[int] = field(default_factory=list)


def fit(
    model: PeftModel,
    train_rows: Encoded,
    validation_rows: Encoded,
    spec: Spec,
    events: EventLog,
    *,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints | None = None,
    found: Checkpoint | None = None,
    start: Mapping[str, Any] | None = None,
    spent_s: float = 0.0,
    trackers: Trackers | None = None,
) -> Fitted:
    """Train `model` in place and leave the averaged weights in it that were best on validation.

    With `checkpoints`, its state is saved now and then, and when SIGTERM asks it to stop; `start` goes into each of
    them as it is.  From `found`, one of them, the training goes on as if it had never stopped.  `spent_s` is what the
    run took before this, for the estimate of its cost.  Raises JobError as soon as a loss is not finite or nothing is
    being learnt, when a single row does not fit in memory, or when it would cost too much; and Stopped.
    """
    loop = _Loop(
        model, train_rows, validation_rows, spec, events, ranks or Ranks(), checkpoints, start or {}, spent_s,
        trackers or Trackers(),
    )  # fmt: skip
    if found is not None:
        loop.restore(found)
    with Stop() as stop:
        return loop.run(stop)


class _Loop:
    """The state of one training between two steps."""

    def __init__(
        self,
        model: PeftModel,
        train_rows: Encoded,
        validation_rows: Encoded,
        spec: Spec,
        events: EventLog,
        ranks: Ranks,
        checkpoints: Checkpoints | None,
        start: Mapping[str, Any],
        spent_s: float,
        trackers: Trackers,
    ) -> None:
        self._model, self._rows, self._validation, self._spec, self._ranks = (
            model, train_rows, validation_rows, spec, ranks
        )  # fmt: skip
        self._checkpoints, self._start, self._spent_s, self._trackers = checkpoints, start, spent_s, trackers
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._names, self._parameters = list(named), list(named.values())
        self._device = models.head_of(model).weight.device
        self._steps_per_epoch = batches.steps_per_epoch(len(train_rows.token_ids), spec.train_batch_size)
        steps = round(spec.num_train_epochs * self._steps_per_epoch)
        if steps == 0:
            raise JobError(f"num_train_epochs {spec.num_train_epochs:g} is no step at all", hint="num_train_epochs: 3")
        self._evaluate_at = evaluation_steps(
            steps, self._steps_per_epoch, int(train_rows.lengths.sum()), int(validation_rows.lengths.sum())
        )
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=self._device.type != "mps"
        )
        self._label_ids = torch.from_numpy(train_rows.label_ids).to(self._device)  # (N,)
        classes = models.head_of(model).out_features
        counts = np.bincount(train_rows.label_ids, minlength=classes)
        weights = class_weights(counts, spec.class_weights)  # (C,)
        self._class_weights = None if weights is None else weights.to(self._device)
        self._sentinels = Sentinels(model, (counts + 1) / (counts + 1).sum())
        self._average = Average(self._parameters)
        self._best_weights: list[Tensor] = []
        # Random numbers have one order only in one thread.
        alone = self._device.type != "cpu" or models.draws_random_numbers(model)
        self._lanes = 1 if alone else torch.get_num_threads()
        self._fitted = Fitted(steps=steps)
        self._events = events
        self._pending: tuple[int, Later] | None = None

    def run(self, stop: Stop) -> Fitted:
        """All steps that are left, and the best weights put back."""
        fitted = self._fitted
        events = self._events if self._ranks.is_first else None
        self._reporter = Reporter(events, self._trackers, fitted.steps, self._steps_per_epoch)
        self._began = self._saved = time.monotonic()
        self._seconds_before = fitted.seconds
        peak = calibration.peak_flops(self._device, self._computed_in())
        stopwatch, save_took_s, done_before = calibration.Stopwatch(self._device), 0.0, fitted.done
        self._model.train()
        with inference.lanes(self._device, self._lanes) as self._parallel:
            if not fitted.tokens_per_batch:
                fitted.tokens_per_batch = self._probed_budget()
            for step, rows in self._steps_left():
                asked_to_stop, may_save = self._step(step, rows, stop.asked, self._time_to_save(save_took_s))
                mine = self._rows.lengths[rows[self._ranks.rank :: self._ranks.size]]
                if measured := stopwatch.step(step - done_before, mine):
                    self._calibrate(measured, peak, step)
                if step in self._evaluate_at:
                    self._evaluate(step)
                if fitted.stopped_early:
                    break
                if asked_to_stop and step < fitted.steps:
                    self._save(step)
                    raise Stopped(f"stopped after step {step} of {fitted.steps}, as asked")
                if may_save and step < fitted.steps:
                    save_took_s = self._save(step)
        with torch.no_grad():
            for parameter, best in zip(self._parameters, self._best_weights, strict=True):
                parameter.copy_(best)
        self._model.eval()
        fitted.seconds = self._seconds()
        return fitted

    def _step(self, step: int, rows: batches.Indices, asked_to_stop: bool, time_to_save: bool) -> tuple[bool, bool]:
        """One optimizer step; whether to stop after it, and whether to save: all ranks agree on both."""
        fitted, spec = self._fitted, self._spec
        loss = self._gradients(rows[self._ranks.rank :: self._ranks.size], len(rows))
        wishes = torch.tensor([float(asked_to_stop), float(time_to_save)])
        told = torch.cat([loss.reshape(1), inference.on_device(wishes, self._device)])
        self._ranks.sum_([*self._summed_gradients(), told])
        self._sentinels.gradients(step, told[0])
        if spec.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, spec.max_grad_norm)
        learning_rate = spec.learning_rate * rate(step - 1, fitted.steps, spec)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._average.update()
        self._sentinels.weights(step, fitted.steps)

        # What the step before told is looked at while a GPU still works on this one: no waiting, one step late.
        agreed = self._note_loss()
        self._pending = (step, Later(told))
        fitted.done = step
        fitted.rows += len(rows)
        fitted.tokens += int(self._rows.lengths[rows].sum())
        self._reporter.step(step, fitted, learning_rate, self._seconds())
        if self._ranks.size == 1:
            agreed = asked_to_stop, time_to_save
        if isinstance(spec.save_steps, int):
            agreed = agreed[0], self._checkpoints is not None and step % spec.save_steps == 0
        return agreed

    def _gradients(self, rows: batches.Indices, rows_in_step: int) -> Tensor:
        """Put the gradients of this rank's rows into the parameters; their share of the step's mean loss a row.

        What does not fit in memory is done again in halves: the rows of a step stay together whatever their number.
        """
        fitted = self._fitted
        while True:
            micro_batches = batches.micro_batches(rows, self._rows.lengths, fitted.tokens_per_batch, self._lanes)
            try:
                total = torch.zeros((), device=self._device)
                for loss, gradients in self._parallel(self._loss_and_gradients, micro_batches):
                    # Sums, divided by the rows of the whole step: the mean a row, however the step was cut up.
                    total += loss / rows_in_step
                    add_gradients(self._parameters, gradients, 1 / rows_in_step)
                fitted.padded_tokens += batches.padded_tokens(micro_batches, self._rows.lengths)
                return total
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out(error):
                    raise
                largest = max(len(batch) * int(self._rows.lengths[batch].max()) for batch in micro_batches)
                if max(map(len, micro_batches)) == 1:
                    raise JobError(
                        f"out of memory with a single row of {largest} tokens", hint="a lower max_length, or bf16: yes"
                    ) from error
            self._optimizer.zero_grad()
            memory.give_back()  # out here, where the exception no longer holds what was computed
            fitted.tokens_per_batch = max(1, min(fitted.tokens_per_batch, largest) // 2)
            self._warn(f"out of memory: going on with {fitted.tokens_per_batch} tokens a forward pass")

    def _loss_and_gradients(self, rows: batches.Indices) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Of the rows of one micro-batch, each summed over them."""
        token_ids = torch.from_numpy(batches.padded(self._rows.token_ids, rows, models.pad_id_of(self._model)))
        logits = models.logits(self._model, inference.on_device(token_ids, self._device))  # (B, C) float32
        loss = functional.cross_entropy(
            logits,
            self._label_ids[inference.on_device(torch.from_numpy(rows), self._device)],
            weight=self._class_weights,
            label_smoothing=self._spec.label_smoothing_factor,
            reduction="sum",
        )
        return loss.detach(), torch.autograd.grad(loss, self._parameters, allow_unused=True)

    def _summed_gradients(self) -> list[Tensor]:
        """The gradients that are summed over the ranks.  A rank without rows, or a layer without a share, adds zero."""
        if self._ranks.size == 1:
            return []
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def _note_loss(self) -> tuple[bool, bool]:
        """Keep the loss of the step that was not looked at yet; whether some rank wished to stop then, or to save."""
        if self._pending is None:
            return False, False
        step, told = self._pending
        self._pending = None
        loss, stop, save = told.values()
        self._fitted.losses.append((step, finite(loss, f"loss is not finite at step {step}")))
        return bool(stop), bool(save)

    def _evaluate(self, step: int) -> None:
        """Look at the validation split with the averaged weights; keep them if they are the best so far."""
        fitted, spec = self._fitted, self._spec
        self._note_loss()
        with self._average.in_place():
            logits = self._validation_logits()
            evaluation = evaluate(logits, self._validation.label_ids, step, step / self._steps_per_epoch, spec)
            fitted.evaluations.append(evaluation)
            better = fitted.best is None or is_better(evaluation, fitted.best, spec.metric_for_best_model)
            if better:
                fitted.best = evaluation
                self._best_weights = [parameter.detach().clone() for parameter in self._parameters]
        self._reporter.evaluation(evaluation, better)
        self._sentinels.validation(step, fitted.steps, logits, self._validation.label_ids)
        assert fitted.best is not None
        since = sum(one.step > fitted.best.step for one in fitted.evaluations)
        if spec.early_stopping_patience and since >= spec.early_stopping_patience and step < fitted.steps:
            fitted.stopped_early = f"{since} evaluations without a better {spec.metric_for_best_model}"
            self._say(f"stopping early after step {step}: {fitted.stopped_early}")

    def _validation_logits(self) -> NDArray[np.float32]:
        """(N, C), each rank having worked out its share."""
        budget = inference.budget(self._spec.tokens_per_batch, self._device)

        def answer(rows: batches.Indices) -> NDArray[np.float32]:
            token_ids = [self._validation.token_ids[row] for row in rows]
            return inference.logits(self._model, token_ids, tokens_per_batch=budget, parallel=self._parallel)

        return self._ranks.rows(len(self._validation.token_ids), answer)

    def _probed_budget(self) -> int:
        """The token budget: the spec's, or for `auto` the best of growing ones, tried on the longest rows.

        That is the largest one which fits and is clearly faster than the one before; forward and backward really run.
        """
        if self._spec.tokens_per_batch != AUTO:
            return int(self._spec.tokens_per_batch)
        lengths = self._rows.lengths
        share = -(-self._spec.train_batch_size // self._ranks.size)
        longest = np.argsort(-lengths, kind="stable")[:share]
        most = batches.padded_tokens([longest[:: self._lanes]], lengths)  # more than a step has for a lane
        budget, best, chosen = SMALLEST_BUDGET, 0.0, SMALLEST_BUDGET
        started = time.monotonic()
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):  # dropout draws numbers
            while time.monotonic() - started < PROBE_S:
                rows_of_a_batch = max(1, budget // int(lengths[longest[0]]))
                speed = self._speed(longest[: rows_of_a_batch * self._lanes], budget)
                if speed < best * WORTH:
                    break
                best, chosen = speed, budget
                if budget >= most:
                    break
                budget *= 2
        self._say(f"tokens per batch: {chosen} by a trial of {time.monotonic() - started:.1f} s")
        return chosen

    def _speed(self, rows: batches.Indices, budget: int) -> float:
        """Tokens a second of these rows without an update, the better of two; 0 where they do not fit in memory."""
        micro_batches = batches.micro_batches(rows, self._rows.lengths, budget, self._lanes)
        best = 0.0
        for _ in range(2):
            started = time.monotonic()
            try:
                losses = [loss for loss, _ in self._parallel(self._loss_and_gradients, micro_batches)]
                float(sum(losses))  # a GPU has to be done with it
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out(error):
                    raise
                break
            best = max(best, int(self._rows.lengths[rows].sum()) / (time.monotonic() - started))
        else:
            return best
        memory.give_back()
        return 0.0

    def _calibrate(self, measured: tuple[float, float, float], peak: float, step: int) -> None:
        """Tell what the rest will take, from the first real steps.  Raises JobError where that costs too much."""
        spec, fitted = self._spec, self._fitted
        looks = sum(at > step for at in self._evaluate_at)
        # A validation row costs a third of a training row: forward only.
        left = float(self._rows.lengths.mean()) * spec.train_batch_size * (fitted.steps - step)
        left += looks * int(self._validation.lengths.sum()) / 3
        found = calibration.calibrate(
            self._model,
            measured,
            peak=peak,
            tokens_left=left,
            elapsed_s=self._spent_s + time.monotonic() - self._began,
            price=spec.price,
            device=self._device,
            ranks=self._ranks.size,
        )
        fitted.calibration = found.to_json()
        if self._ranks.is_first:
            self._events.write("calibration", **found.to_json())
        self._say(found.in_words())
        if spec.max_cost and found.cost > spec.max_cost:
            raise JobError(
                f"the run would cost about {found.cost:.2f}, more than max_cost {spec.max_cost:g} "
                f"(estimate of {found.steps} measured steps: {found.total_s / 3600:.2f} h at {spec.price:g} an hour)",
                hint="a higher --max-cost, fewer epochs, a smaller base or a shorter max_length",
            )

    def _computed_in(self) -> torch.dtype:
        base = next(parameter for parameter in self._model.parameters() if not parameter.requires_grad)
        return base.dtype

    def _steps_left(self) -> Iterator[tuple[int, batches.Indices]]:
        """Number and rows of the steps after those that are done, epoch after epoch, each in another order."""
        fitted, spec = self._fitted, self._spec
        for number in range(fitted.done // self._steps_per_epoch, math.ceil(fitted.steps / self._steps_per_epoch)):
            first = number * self._steps_per_epoch
            rows = batches.epoch(self._rows.lengths, spec.train_batch_size, seed=spec.seed, number=number)
            for step, one in enumerate(rows, start=first + 1):
                if fitted.done < step <= fitted.steps:
                    yield step, one

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _time_to_save(self, last_took_s: float) -> bool:
        since_s = time.monotonic() - self._saved
        return self._checkpoints is not None and since_s >= max(SAVE_EVERY_S, last_took_s / SAVE_SHARE)

    def _save(self, step: int) -> float:
        """Save a checkpoint; the seconds it took.  A disk that is full is no reason to stop."""
        started = time.monotonic()
        self._note_loss()
        random = [torch.get_rng_state()]
        if self._device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self._device))
        states = [self._ranks.each(state) for state in random]
        if self._checkpoints is not None and self._ranks.is_first:
            try:
                self._checkpoints.save(Checkpoint(step, self._arrays(states), self._state()))
                self._say(f"checkpoint after step {step}")
            except OSError as error:
                self._warn(f"no checkpoint after step {step}: {error.strerror or error}")
        self._saved = time.monotonic()
        return self._saved - started

    def _arrays(self, random: Sequence[Sequence[Tensor]]) -> dict[str, NDArray[Any]]:
        state = self._optimizer.state_dict()["state"]
        groups: dict[str, Sequence[Tensor]] = {
            "parameter": [parameter.detach() for parameter in self._parameters],
            "average": self._average.weights,
            "best": self._best_weights,
            **{key: [state[index][key] for index in range(len(self._names))] for key in ADAM},
        }
        arrays = {
            f"{group}/{name}": tensor.cpu().numpy()
            for group, tensors in groups.items()
            for name, tensor in zip(self._names, tensors, strict=bool(tensors))
        }
        arrays |= {
            f"random/{kind}/{rank}": one.numpy() for kind, all_ in enumerate(random) for rank, one in enumerate(all_)
        }
        return arrays | {"losses": np.array(self._fitted.losses, dtype=np.float64).reshape(-1, 2)}

    def _state(self) -> dict[str, Any]:
        state = dataclasses.asdict(self._fitted) | {"seconds": self._seconds()}
        del state["losses"]
        return {"fitted": state, "updates": self._average.updates, "start": dict(self._start), "on": self._on()}

    def _on(self) -> dict[str, Any]:
        """What has to be the same for the same bits."""
        kind = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type
        return {"device": kind, "ranks": self._ranks.size, "threads": self._lanes, "torch": torch.__version__}

    def restore(self, found: Checkpoint) -> None:
        """Take over the state of a checkpoint.  Raises JobError where it does not fit this model."""
        try:
            self._take_over(found.arrays, found.state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise JobError(
                f"the checkpoint of step {found.step} does not fit this training: {type(error).__name__}: {error}",
                hint="remove the run's checkpoints to start over",
            ) from error
        self._fitted.resumed_from.append(found.step)
        self._say(f"going on from the checkpoint of step {found.step} of {self._fitted.steps}")
        differ = {key: (was, now) for key, now in self._on().items() if (was := found.state["on"].get(key)) != now}
        if differ:
            changes = ", ".join(f"{key} {was} -> {now}" for key, (was, now) in differ.items())
            self._warn(f"not the same machinery as before ({changes}): the last digits will differ")

    def _take_over(self, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        def group(name: str) -> list[Tensor]:
            return [torch.from_numpy(arrays[f"{name}/{one}"]).to(self._device) for one in self._names]

        with torch.no_grad():
            for parameter, kept in zip(self._parameters, group("parameter"), strict=True):
                if kept.shape != parameter.shape:
                    raise ValueError(f"{tuple(kept.shape)} for {tuple(parameter.shape)}")
                parameter.copy_(kept)
        groups = {key: group(key) for key in ADAM}
        self._optimizer.load_state_dict(
            {
                "state": {i: {key: groups[key][i] for key in ADAM} for i in range(len(self._names))},
                "param_groups": self._optimizer.state_dict()["param_groups"],
            }
        )
        self._average.restore(group("average"), int(state["updates"]))
        fitted = dict(state["fitted"])
        evaluations = [Evaluation(**one) for one in fitted.pop("evaluations")]
        best = fitted.pop("best")
        self._fitted = Fitted(**fitted, evaluations=evaluations, best=Evaluation(**best) if best else None)
        self._fitted.losses = [(int(step), float(loss)) for step, loss in arrays["losses"]]
        self._best_weights = group("best") if best else []
        torch.set_rng_state(torch.from_numpy(arrays[f"random/0/{self._ranks.rank}"]))
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(arrays[f"random/1/{self._ranks.rank}"]), self._device)

    def _warn(self, message: str) -> None:
        if self._ranks.is_first:
            self._events.write("warning", message=message)
        self._say(f"warning: {message}")

    def _say(self, line: str) -> None:
        if self._ranks.is_first:
            say(line)


ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""


def add_gradients(parameters: list[Parameter], gradients: tuple[Tensor | None, ...], scale: float) -> None:
    """Add scaled gradients to what the parameters have; None stands for a parameter that took no part."""
    taken = [
        (parameter, gradient) for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None
    ]
    torch._foreach_mul_([gradient for _, gradient in taken], scale)  # a kernel for all of them instead of one for each
    old = [(parameter.grad, gradient) for parameter, gradient in taken if parameter.grad is not None]
    if old:
        torch._foreach_add_([grad for grad, _ in old], [gradient for _, gradient in old])
    for parameter, gradient in taken:
        if parameter.grad is None:
            parameter.grad = gradient


def class_weights(counts: NDArray[np.int64], kind: str) -> Tensor | None:
    """(C,) float32 from the classes' rows (C,): for `balanced` N / (C x rows), a mean of one over the rows."""
    if kind == "none":
        return None
    return torch.from_numpy((counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32))


def rate(done: int, steps: int, spec: Spec) -> float:
    """Share of the peak learning rate for the step after `done` steps: linear warm-up, then the spec's schedule."""
    warmup = round(spec.warmup_ratio * steps)
    if done < warmup:
        return (done + 1) / (warmup + 1)
    left = 1 - (done - warmup) / max(1, steps - warmup)  # 1 at the end of the warm-up, 0 after the last step
    if spec.lr_scheduler_type == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return left if spec.lr_scheduler_type == "linear" else 1.0
