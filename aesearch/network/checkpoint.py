"""The state of a training, and its file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aesearch.errors import AesearchError, StaleArtifactError
from aesearch.files.atomic import replacing
from aesearch.files.naming import command_for
from aesearch.network.architectures import AutoencoderSpec, Recipe
from aesearch.network.autoencoder import FORMAT_VERSION
from aesearch.network.history import Epoch

if TYPE_CHECKING:
    import torch
    from torch import nn


PATIENCE = 0.25  # of all epochs may pass without a better one, once the learning rate is half-way down


class State:
    """What a checkpoint holds: the network now and at its best, Adam's moments, the history."""

    def __init__(self, model: nn.ModuleDict, optimizer: torch.optim.Adam, attempt: int) -> None:
        self.model, self.optimizer, self.attempt = model, optimizer, attempt
        self.history: list[Epoch] = []
        self.best = copy.deepcopy(model.state_dict())
        self.best_loss, self.best_epoch, self.seconds = math.inf, 0, 0.0

    def add(self, epoch: Epoch) -> None:
        """One more epoch; the weights are kept if it is the best so far."""
        self.history.append(epoch)
        if epoch.held_out_loss < self.best_loss:
            self.best_loss, self.best_epoch = epoch.held_out_loss, epoch.epoch
            self.best = copy.deepcopy(self.model.state_dict())

    def has_settled(self, epochs: int) -> bool:
        """Whether no epoch has been better for so long that none will be."""
        since = max(self.best_epoch, epochs // 2)  # at high rates the loss may stand still, and fall when they do
        return len(self.history) - since > max(5, PATIENCE * epochs)

    def save(self, path: Path, identity: dict[str, Any], begun_for: dict[str, Any]) -> None:
        """Write all that is needed to go on."""
        from safetensors.torch import save_file

        moments = {
            f"adam.{index}.{name}": tensor
            for index, values in self.optimizer.state_dict()["state"].items()
            for name, tensor in values.items()
        }
        tensors = {f"now.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()} | moments
        document = {
            "identity": identity,
            "begun_for": begun_for,
            "attempt": self.attempt,
            "history": [dataclasses.asdict(e) for e in self.history],
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }
        tensors, written = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, json.dumps(document)
        with replacing(path, sum(t.nbytes for t in tensors.values())) as temporary:
            save_file(tensors, temporary, metadata={"aesearch": written, "sha256": _digest(tensors, written)})

    def load(self, path: Path | None, identity: dict[str, Any]) -> dict[str, Any]:
        """Go on from a checkpoint; for how many epochs, and in how many minutes, it was begun."""
        import torch
        from safetensors import SafetensorError, safe_open

        if path is None or not path.is_file():
            begin = command_for("train SOURCE", path.parent) if path else "aesearch train SOURCE"
            raise AesearchError(f"there is no training to resume: run {begin} without --resume")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                document = json.loads(metadata["aesearch"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if metadata["sha256"] != _digest(tensors, metadata["aesearch"]):
                raise ValueError("not as it was written")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            begin = command_for("train SOURCE", path.parent)
            raise StaleArtifactError(f"{path} is damaged: run {begin} without --resume") from error
        differing = [k for k, v in identity.items() if document["identity"].get(k) != v]
        if differing:
            raise StaleArtifactError(
                f"the training to resume had other settings ({', '.join(differing)}): "
                "give the same ones, or train without --resume"
            )
        self.model.load_state_dict(_part(tensors, "now."))
        self.best = _part(tensors, "best.")
        moments: dict[int, dict[str, torch.Tensor]] = {}
        parameters = list(self.model.parameters())
        for name, tensor in _part(tensors, "adam.").items():
            index, moment = int(name.split(".")[0]), name.split(".")[1]
            if tensor.ndim:  # the fused optimizer walks memory: moments must lie as their parameter does
                tensor = torch.empty_like(parameters[index]).copy_(tensor)
            moments.setdefault(index, {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history = [Epoch(**e) for e in document["history"]]
        self.best_loss, self.best_epoch = document["best_loss"], document["best_epoch"]
        self.attempt, self.seconds = document["attempt"], document.get("seconds", 0.0)
        begun_for: dict[str, Any] = document.get("begun_for", {})
        return begun_for


def _digest(tensors: dict[str, torch.Tensor], document: str) -> str:
    """Of all that a checkpoint holds: no manifest knows its hash."""
    digest = hashlib.sha256(document.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def identity_of(spec: AutoencoderSpec, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What must be the same for a training to go on; the number of epochs may grow."""
    document = dataclasses.asdict(recipe) | spec.to_json() | {"seed": seed, "format_version": FORMAT_VERSION}
    del document["epochs"]
    if not spec.mirror:
        del document["mirror"]  # trainings begun before there were any do not have it
    identity: dict[str, Any] = json.loads(json.dumps(document))
    return identity
