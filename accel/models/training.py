"""One run of the experiment: a small network trained on a small task by one method, from one seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel.errors import ConfigError
from accel.models.machine import on_machine
from accel.models.recipes import recipe
from accel.models.results import Row, Run
from accel.models.small import DENSE_LAYERS, NETWORKS
from accel.models.sparse import sparsify
from accel.models.tasks import TASKS, Data
from accel.sparsity import NMPattern

BATCH = 64
NUMERICS = ("fp32", "autocast", "machine")
"""Products in FP32; in FP16 as torch's autocast does it; bit-true as the machine does it. The last two scale the loss."""


@dataclass(frozen=True)
class Settings:
    """How a network trains, whatever the method: chosen for dense training."""

    optimizer: str
    """The optimizer as the simulated machine knows it: "sgd" (momentum 0.9) or "adam" (AdamW)."""
    learning_rate: float
    """At the start; it falls to 0 along half a cosine."""
    weight_decay: float
    epochs: int


SETTINGS = {
    "cnn": Settings("sgd", learning_rate=0.05, weight_decay=5e-4, epochs=20),
    "vit": Settings("adam", learning_rate=3e-3, weight_decay=1e-2, epochs=40),
}


def network(run: Run, size: tuple[int, ...]) -> nn.Module:
    """Return the dense network of a run, for samples (1, *size), as its seed starts it."""
    torch.manual_seed(run.seed)
    return NETWORKS[run.network](size)


def data(run: Run) -> Data:
    """Return the samples of a run."""
    return TASKS[run.task](run.seed).first(run.samples or None)


def check(run: Run) -> None:
    """Raise if something in `run` does not exist."""
    problems = [
        f"{what} must be one of {', '.join(known)}, not {value!r}"
        for what, value, known in (
            ("task", run.task, TASKS),
            ("network", run.network, NETWORKS),
            ("numerics", run.numerics, NUMERICS),
        )
        if value not in known
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    if recipe(run.method).name != "dense" and NMPattern.parse(run.pattern).is_dense:
        raise ConfigError(f"pattern must keep less than its group for {run.method}, not {run.pattern}; train dense instead")


def train(run: Run, step_seconds: float | None) -> Iterator[Row]:
    """Yield a row after every epoch; the same run gives the same rows."""
    check(run)
    samples = data(run)
    train_x, train_y = torch.from_numpy(samples.train_x), torch.from_numpy(samples.train_y)
    steps = len(train_x) // BATCH
    trainer = _Trainer(run, network(run, samples.train_x.shape[2:]), run.epochs * steps)
    order = torch.Generator().manual_seed(run.seed)
    for epoch in range(1, run.epochs + 1):
        batches = torch.randperm(len(train_x), generator=order)[: steps * BATCH].view(steps, BATCH)
        losses = [trainer.step(train_x[batch], train_y[batch]) for batch in batches]
        accuracy = trainer.accuracy(torch.from_numpy(samples.test_x), torch.from_numpy(samples.test_y))
        loss = sum(losses) / max(1, steps)
        fields = {name: getattr(run, name) for name in run.__dataclass_fields__}
        yield Row(
            **fields, epoch=epoch, train_loss=loss, test_accuracy=accuracy, step_seconds=step_seconds, steps=epoch * steps
        )


class _Trainer:
    def __init__(self, run: Run, model: nn.Module, total_steps: int) -> None:
        self._settings = SETTINGS[run.network]
        self._scaler = torch.amp.GradScaler("cpu", enabled=run.numerics != "fp32")
        self._autocast = run.numerics == "autocast"
        self._model = model
        if run.method != "dense":
            sparsify(model, run.method, run.pattern, exclude=DENSE_LAYERS, loss_scale=self._scaler.get_scale, seed=run.seed)
        if run.numerics == "machine":
            on_machine(model, threads=1)
        self._optimizer = self._make_optimizer()
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(1, total_steps))

    def step(self, x: Tensor, labels: Tensor) -> float:
        """Return the loss of one training step."""
        self._model.train()
        self._optimizer.zero_grad()
        loss = functional.cross_entropy(self._logits(x), labels)
        scaled: Any = self._scaler.scale(loss)
        scaled.backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        return loss.item()

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Return the fraction of right answers."""
        self._model.eval()
        return (self._logits(x).argmax(1) == labels).double().mean().item()

    def _logits(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16, enabled=self._autocast):
            logits: Tensor = self._model(x)
        return logits.float()

    def _make_optimizer(self) -> Any:
        rate, decay = self._settings.learning_rate, self._settings.weight_decay
        if self._settings.optimizer == "sgd":
            return torch.optim.SGD(self._model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
        return torch.optim.AdamW(self._model.parameters(), lr=rate, weight_decay=decay)
