"""The report of a collection: one page with pictures that can be sent to a colleague, a model card.

Every figure comes from the manifest, or from what is asked of the collection while the page is made.
"""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.baselines import judge
from aesearch.drawing.figures import LOSSLESS_SIDE, data_url, heat_over, short_names, to_picture, webp
from aesearch.drawing.map_page import asset, filled
from aesearch.drawing.plots import draw_history
from aesearch.errors import AesearchError
from aesearch.network.history import HISTORY, read_history

if TYPE_CHECKING:
    from aesearch.collection.facade import Collection

SAMPLES, REBUILT, ODD, MEMBERS, MOST_CLUSTERS, MOST_GROUPS, DOUBTS = 36, 11, 11, 10, 30, 12, 27
SHORT, END = 12, 9  # letters of a caption that always has room; at the end of a longer one, those always shown
MOST_NAMED = 20  # labels that are counted one by one

Picture = NDArray[np.uint8]


def make_report(collection: Collection) -> str:
    """One self-contained HTML page about a collection; what it lacks is said, with the command that makes it.

    Raises
    ------
    AesearchError
        There is no index, or something is damaged.
    """
    sections: list[tuple[str, Callable[[Collection], str]]] = [
        ("What is in it", _contents),
        ("How the encoder learned", _learning),
        ("How good it is", _quality),
        ("Clusters", _clusters),
        ("The strangest images", _oddest),
        ("Near duplicates", _duplicates),
        ("Labels in doubt", _doubts),
        ("How it was made", _making),
    ]
    body = "".join(f"<section><h2>{title}</h2>{make(collection)}</section>" for title, make in sections)
    made, source = collection.manifest.artifacts["features"]["time"], collection.store.source
    title = _text(f"{collection.name}: a collection of images")
    lead = f"<p class='lead'>{collection.store.rows:,} images of {_text(source)}, encoded {_text(made)}</p>"
    return filled(
        "card.html",
        {"title": title, "styles": asset("base.css") + asset("card.css"), "body": f"<h1>{title}</h1>{lead}{body}"},
    )


# ---------------------------------------------------------------- sections


def _contents(collection: Collection) -> str:
    rows = collection.store.rows
    skipped = collection.manifest.artifacts["features"]["figures"]["skipped"]
    facts = [("images", f"{rows:,}"), ("files that gave no image", f"{skipped:,}")]
    tables = [_table(("", ""), facts)]
    for name in ("label", "split"):
        counts = Counter(value for value in collection.store.texts(name) if value)
        if counts:
            listed = counts.most_common(MOST_NAMED)
            rest = sum(counts.values()) - sum(count for _, count in listed)
            more = [(f"{len(counts) - len(listed):,} others", f"{rest:,}")] if rest else []
            tables.append(_table((name, "images"), [(value, f"{count:,}") for value, count in listed] + more))
    chosen = np.unique(np.linspace(0, rows - 1, min(SAMPLES, rows)).astype(int)).tolist()
    names = collection.store.texts("id", chosen)
    return _side_by_side(tables) + _grid(
        (picture, (name,)) for picture, name in zip(collection.pictures(chosen), short_names(names), strict=True)
    )


def _learning(collection: Collection) -> str:
    artifact = collection.manifest.artifacts["encoder"]
    figures, recipe = artifact["figures"], artifact["parameters"]["recipe"]
    facts = [
        ("network", f"{artifact['parameters']['spec']['arch']}, {figures['parameters']:,} parameters"),
        ("latent size", f"{artifact['parameters']['spec']['latent_dim']}"),
        ("epochs, best epoch", f"{recipe['epochs']}, {figures['best_epoch']}"),
        ("invariance", recipe["invariance"]),
        ("training", f"{figures['seconds'] / 60:.1f} minutes on {figures['device']}"),
        ("restarts, dead latents", f"{figures['restarts']}, {figures['dead_latents']}"),
    ]
    return _table(("", ""), facts) + _curve(collection.folder / HISTORY, f"{recipe['loss']}") + _rebuilt(collection)


def _curve(path: Path, loss: str) -> str:
    """The losses after each epoch, drawn."""
    if not path.is_file():
        return ""
    history = read_history(path)
    train, held_out = [epoch.train_loss for epoch in history], [epoch.held_out_loss for epoch in history]
    figure = draw_history([epoch.epoch for epoch in history], train, held_out, loss)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96)
    return f"<img class='curve' alt='loss over epochs' src='{data_url(buffer.getvalue(), 'png')}'>"


def _rebuilt(collection: Collection) -> str:
    """Some images that the encoder was not trained on, where there are any, over what it makes of them."""
    held_out = np.flatnonzero(collection.store.held_out())
    among = held_out if len(held_out) else np.arange(collection.store.rows)
    rows = among[np.unique(np.linspace(0, len(among) - 1, min(REBUILT, len(among))).astype(int))].tolist()
    try:
        originals, rebuilt = collection.reconstruct(rows=rows)
    except AesearchError:  # the images are gone
        return ""
    told = "held-out images" if len(held_out) else "images"
    pairs = zip(originals, rebuilt, strict=True)
    return f"<h3>{told}, over their reconstructions</h3>" + _grid(
        ((_stack(to_picture(original), to_picture(again)), ()) for original, again in pairs), "pairs"
    )


def _free(found: dict[str, dict[str, float]]) -> str:
    """Accuracies on a sample beside those of what trains nothing, and which is best."""
    if not found:
        return ""
    rows = [(name, f"{of['linear_accuracy']:.3f}", f"{of['knn_accuracy']:.3f}") for name, of in found.items()]
    table = _table(("labels, on a sample", "linear probe", "10 nearest neighbours"), rows)
    return f"<h3>Beside untrained baselines</h3>{table}<p>{_text(judge(found))}.</p>"


def _quality(collection: Collection) -> str:
    artifacts = collection.manifest.artifacts
    encoder, index = artifacts["encoder"]["figures"], artifacts["index"]["figures"]
    low, high = index["recall_interval"]
    rows: list[tuple[str, ...]] = [
        ("mean squared error of held-out images", _number(encoder["reconstruction_mse"]),
         "PCA of the same size", _number(encoder["pca_mse"])),
        (f"recall@10 of the index ({index['kind']})", f"{index['recall_at_10']:.3f}, 95 %: {low:.3f} to {high:.3f}",
         "exact search", "1"),
    ]  # fmt: skip
    said = ""
    if collection.is_fresh("probe"):
        probe = artifacts["probe"]["figures"]
        usual = _number(probe.get("commonest_share"))
        rows.append(
            ("labels, linear probe, accuracy", f"{probe['linear_accuracy']:.4f}", "always the commonest label", usual)
        )
        rows.append(("labels, 10 nearest neighbours, accuracy", f"{probe['knn_accuracy']:.4f}", "the same", usual))
        said = _free(probe.get("free") or {})
    elif any(collection.labels()):
        said = _lacks("accuracies on labels", collection.command("probe"))
    return _table(("", "this collection", "beside it", ""), rows) + said


def _clusters(collection: Collection) -> str:
    if not collection.is_fresh("clusters"):
        return _lacks("clusters", collection.command("cluster"))
    figures = collection.manifest.artifacts["clusters"]["figures"]
    facts = [("clusters", f"{figures['clusters']}"), ("silhouette", _number(figures["silhouette"]))]
    facts += [("stability over resamples", _number(figures["stability"]))] if figures["stability"] is not None else []
    facts += [(f"against labels, {name}", _number(value)) for name, value in (figures["against_labels"] or {}).items()]
    _, members = collection.centres()
    parts = [_table(("", ""), facts), "<p>The first picture of each is its decoded centre.</p>"]
    for number, rows in enumerate(members[:MOST_CLUSTERS]):
        if not len(rows):
            continue
        shown = [to_picture(collection.centre_picture(rows))]
        shown += [to_picture(picture) for picture in collection.pictures(rows[:MEMBERS].tolist())]
        parts.append(f"<h3>{_text(collection.cluster_title(number))}, {len(rows):,} images</h3>")
        parts.append(_grid(((picture, ()) for picture in shown), "cluster"))
    return "".join(parts)


def _oddest(collection: Collection) -> str:
    learned = collection.is_fresh("combined")
    found = collection.anomalies(score="combined" if learned else "reconstruction", top=ODD)
    maps = collection.heat_maps(found)
    pictures = [to_picture(picture) for picture in collection.pictures_of(found)]
    shown = (
        (_stack(picture, heat_over(picture, heat)), (f"{score:.4f} {why}".strip(), name))
        for picture, heat, score, why, name in zip(
            pictures, maps, found.scores, found.reasons, short_names(found.ids), strict=True
        )
    )
    better = f"reconstruction error alone; {collection.command('anomalies')} finds them better"
    by = "combined score" if learned else _text(better)
    told = f"<p>By {by}. Under each a heat-map: the brightest colour is {collection.heat_told(found.by)}.</p>"
    return told + _grid(shown, "pairs")


def _duplicates(collection: Collection) -> str:
    found = collection.duplicates()
    images, exact = sum(map(len, found.rows)), sum(found.exact)
    told = f"{len(found.rows):,} groups of {images:,} images, {exact:,} of the groups exact copies"
    told += f"; {_text(collection.metric)} distance up to {found.threshold:.3g}"
    parts = []
    for number, (rows, ids) in enumerate(list(zip(found.rows, found.ids, strict=True))[:MOST_GROUPS]):
        pictures = [to_picture(picture) for picture in collection.pictures(rows[:MEMBERS].tolist())]
        more = f", {len(rows):,} images" if len(rows) > MEMBERS else ""
        shown = _grid((picture, (name,)) for picture, name in zip(pictures, short_names(ids), strict=False))
        parts.append(f"<div><h3>{found.kind(number)}{more}</h3>{shown}</div>")
    return f"<p>{told}.</p>" + _side_by_side(parts)


def _doubts(collection: Collection) -> str:
    if not any(collection.labels()):
        return "<p>The images have no labels.</p>"
    if not collection.is_fresh("probe") or "doubts" not in collection.manifest.artifacts["probe"]["figures"]:
        return _lacks("labels in doubt", collection.command("probe"))
    figures = collection.manifest.artifacts["probe"]["figures"]
    if figures.get("doubts_withheld"):
        return f"<p>No label is doubted: {_text(figures['doubts_withheld'])}.</p>"
    listed = figures["doubts"][:DOUBTS]
    rows = [row for row, _, _ in listed]
    labels, names = collection.store.texts("label", rows), short_names(collection.store.texts("id", rows))
    shown = (
        (to_picture(picture), (f"{label} →", rather, f"{confidence:.3f} · {name}"))
        for picture, label, name, (_, rather, confidence) in zip(
            collection.pictures(rows), labels, names, listed, strict=True
        )
    )
    return (
        f"<p>{figures['doubted']:,} in doubt: the label, the prediction of a probe not trained on it, confidence.</p>"
        + _grid(shown)
    )


def _making(collection: Collection) -> str:
    """Settings, versions and hashes of everything, as the manifest has them."""
    parts = []
    for name, artifact in collection.manifest.artifacts.items():
        rows = [(key, value) for key, value in _flat(artifact["parameters"]) if value not in (None, "None")]
        rows += [("made", artifact["time"])]
        rows += [(f"version of {package}", version) for package, version in artifact["versions"].items()]
        rows += [(f"SHA-256 of {file}", facts["sha256"]) for file, facts in artifact["files"].items()]
        parts.append(f"<details><summary>{_text(name)}</summary>{_table(('', ''), rows)}</details>")
    return "".join(parts)


# ---------------------------------------------------------------- pieces of HTML


def _flat(document: dict[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key} ")
        else:
            yield f"{before}{key}", str(value)


def _lacks(what: str, command: str) -> str:
    return f"<p class='lacks'>There are no {what} yet: run <code>{_text(command)}</code>, then this again.</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th scope='col'>{_text(name)}</th>" for name in head)
    lines = "".join(
        f"<tr><th scope='row'>{_text(first)}</th>" + "".join(f"<td>{_text(value)}</td>" for value in rest) + "</tr>"
        for first, *rest in rows
    )
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if any(head) else ''}<tbody>{lines}</tbody></table>"


def _side_by_side(parts: Iterable[str]) -> str:
    return f"<div class='beside'>{''.join(parts)}</div>"


def _grid(shown: Iterable[tuple[NDArray[Any], Sequence[str]]], kind: str = "") -> str:
    """Pictures with lines under them."""
    figures = []
    for image, lines in shown:
        picture = image if image.ndim == 2 or image.shape[-1] == 3 else to_picture(image)
        caption = "".join(map(_line, lines))
        name = _text(lines[-1] if lines else "")
        exact = " class='exact'" if max(picture.shape[:2]) <= LOSSLESS_SIDE else ""
        under = f"<figcaption>{caption}</figcaption>" if caption else ""
        figures.append(f"<figure><img{exact} alt='{name}' src='{data_url(webp(picture), 'webp')}'>{under}</figure>")
    return f"<div class='grid {kind}'>{''.join(figures)}</div>"


def _line(text: str) -> str:
    """A line of a caption that is cut in the middle where there is no room for it: its end stays."""
    text = " ".join(text.split())
    end = len(text) - END if len(text) > SHORT else len(text)
    return f"<span class='cut'><span>{_text(text[:end])}</span><span>{_text(text[end:])}</span></span>"


def _stack(upper: Picture, lower: Picture) -> Picture:
    """Two pictures of one size, one over the other."""
    both = [p if p.ndim == 3 else p[..., None].repeat(3, axis=2) for p in (upper, lower)]
    return np.concatenate([both[0], np.full((max(1, len(both[0]) // 24), *both[0].shape[1:]), 255, np.uint8), both[1]])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _text(value: object) -> str:
    return html.escape(str(value))
