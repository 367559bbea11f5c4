"""The files of a folder that may be images, without what other programs keep between them, and its splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aesearch.files.names import as_text, id_of, listed, split_of
from aesearch.progress import counted

# Copies, previews and bins of storage boxes and systems, in any case; folders whose names begin with a dot are too.
LEFT_OUT = {
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "__macosx",
    "$recycle.bin", "recycler", "system volume information", "lost+found",
}  # fmt: skip
MASKS = {"ground_truth", "ground-truth", "groundtruth"}  # of an inspection set, where they stand beside its images
MASKED = {"train", "test"}


@dataclass
class Listing:
    """Files below a folder.

    Attributes
    ----------
    paths : list of Path
        Relative to the folder, in byte order.
    notes : list of str
        What was left out or followed, a line each.
    unreadable : list of (id, reason)
        Folders that could not be listed.
    masks : list of Path
        Folders of masks, relative to the folder; nothing in them is among the paths.
    """

    paths: list[Path]
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """Every file below a folder, but for hidden ones, collections, and what other programs keep there.

    Linked folders are followed, unless what they lead to is listed anyway or would lead round in a circle.
    """
    walk = _Walk(root)
    paths = sorted(counted(walk.files(), "list", "file"), key=lambda path: os.fsencode(path.as_posix()))
    return Listing(paths, walk.notes(), walk.unreadable, walk.masks)


class _Walk:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.unreadable: list[tuple[str, str]] = []
        self.masks: list[Path] = []
        self._left_out: Counter[str] = Counter()
        self._followed: list[str] = []
        self._circular: list[str] = []
        self._real = {str(root): root}  # where each folder really lies
        self._seen = {str(root)}

    def files(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=self._cannot_read):
            if "collection.json" in files:
                folders.clear()
                continue
            beside = {name.casefold() for name in folders}
            self.masks += [(Path(folder) / name).relative_to(self.root) for name in folders if _is_masks(name, beside)]
            kept = [name for name in sorted(folders, key=os.fsencode) if not self._leaves_out(name, beside)]
            folders[:] = [name for name in kept if self._enters(folder, name)]
            for file in files:
                if not file.startswith("."):
                    yield (Path(folder) / file).relative_to(self.root)

    def notes(self) -> list[str]:
        """What people must know of what they do not see, or see from elsewhere."""
        counts = [f"{count:,} {name}" for name, count in self._left_out.most_common()]
        return [
            *([f"left out of {self.root}: {listed(counts)}"] if counts else []),
            *([f"links to folders that are followed: {listed(self._followed)}"] if self._followed else []),
            *([f"links to folders that are listed anyway: {listed(self._circular)}"] if self._circular else []),
        ]

    def _leaves_out(self, name: str, beside: set[str]) -> bool:
        """Whether a folder of that name holds no images of the collection; they are counted."""
        kind = _no_images(name) or ("folder of masks" if _is_masks(name, beside) else "")
        self._left_out.update([kind] if kind else [])
        return bool(kind)

    def _enters(self, folder: str, name: str) -> bool:
        """Whether a folder has not been listed, and will not be elsewhere: those that are linked may."""
        path = Path(folder, name)
        linked = path.is_symlink()
        real = Path(os.path.realpath(path)) if linked else self._real[folder] / name
        known = str(real) in self._seen or (linked and self._is_listed_anyway(real))
        if linked:
            links = self._circular if known else self._followed
            links.append(as_text(f"{path.relative_to(self.root)} -> {real}"))
        if not known:
            self._real[str(path)] = real
            self._seen.add(str(real))
        return not known

    def _is_listed_anyway(self, real: Path) -> bool:
        """Whether a folder is the one that is listed, holds it, or lies in it where it is not left out."""
        if self.root.is_relative_to(real):
            return True
        return real.is_relative_to(self.root) and not any(map(_no_images, real.relative_to(self.root).parts))

    def _cannot_read(self, error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename)).relative_to(self.root)
        self.unreadable.append((id_of(folder), f"cannot be read: {error.strerror}"))


def _is_masks(name: str, beside: set[str]) -> bool:
    return name.casefold() in MASKS and bool(beside & MASKED)


def find_masks(root: Path, folder: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Which file of a folder of masks belongs to which image, both relative to the root.

    As in MVTec AD: to ``test/crack/007.png`` belongs ``ground_truth/crack/007_mask.png``, or without ``_mask``.
    """
    known = {}
    for path in sorted((root / folder).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            inner = path.relative_to(root / folder)
            known[inner.with_name(inner.stem.removesuffix("_mask"))] = path.relative_to(root)
    beside = len(folder.parts)  # folders above the splits
    found = {}
    for path in paths:
        if path.parts[: beside - 1] == folder.parts[:-1] and len(path.parts) > beside:
            inner = Path(*path.parts[beside:])
            if mask := known.get(inner.with_name(inner.stem)):
                found[path] = mask
    return found


def _no_images(name: str) -> str:
    """What a folder is called that holds none, whoever made it, else empty."""
    if name.startswith("."):
        return "hidden folder"
    return f"folder {as_text(name)}" if name.casefold() in LEFT_OUT else ""


def find_splits(paths: Sequence[Path]) -> tuple[dict[str, str], str]:
    """Which top folders are splits, as ``train``, ``val`` or ``test``, and a line that says so.

    They are where all top folders have names of splits, or one of ``train`` stands with one of ``val`` or ``test``:
    a class may be called train too.
    """
    tops = Counter(path.parts[0] for path in paths if len(path.parts) > 1)
    named = {top: split for top in tops if (split := split_of(top))}
    found = set(named.values())
    if not named:
        return {}, ""
    if len(named) == len(tops) or ("train" in found and len(found) > 1):
        sizes = [f"{top} ({tops[top]:,} files)" for top in named]
        return named, f"top folders taken as splits: {', '.join(sizes)}"
    others = listed([as_text(top) for top in tops if top not in named], 3)
    return {}, f"folder {', '.join(named)} is taken as one like {others}, not as a split"
