"""How quick aesearch is beside the plain way of doing each thing, and beside what the machine can do.

    AESEARCH_DATA=data .venv/bin/python scripts/benchmark.py
    AESEARCH_DATA=data .venv/bin/python scripts/benchmark.py --parts store index

Each line names both sides, which run in turn; medians over the rounds, the ratio taken round by round.

training, extraction: the plain way is the loop of most introductions: torchvision's MNIST gives a PIL image,
ToTensor makes it a float tensor, a DataLoader stacks them; then the textbook steps. Same network, same images, same
device: first the tutorials' own network (conv-pool), then aesearch's default. The limit of extraction is the encoder,
compiled where there is a compiler, over a batch that lies in memory.
jpegs, photos: a folder of small JPEGs, and pictures of 1 to 12 megapixels of noise at all scales, against PIL.
With jpegs also decoding by as many DataLoader workers as cores, and extraction beside its halves, alone and in turn.
store: against a raw file of the same numbers. index: against bare FAISS calls; those that
build learn from all rows.
start: whole processes, `aesearch query` over 70,000 rows beside importing torch and torchvision.
serve: what the page of `aesearch serve` asks for, over as many.
gpu: where there is one, training and extraction run on it; the limits of copying and of matrix products are printed.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import requests
import torch
import torchvision
from benchmark_index import draw
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import ToTensor

from aesearch import Collection
from aesearch.collection.extract import encode_source, extract_features
from aesearch.images.batches import LoadedImages, in_order, read_batches
from aesearch.images.decode import Preprocessing, decode
from aesearch.images.sources.base import Source
from aesearch.images.sources.opening import open_source
from aesearch.images.worker_processes import cores
from aesearch.index.build import HELD_OUT_QUERIES, build_index
from aesearch.index.options import IndexOptions
from aesearch.network.architectures import AutoencoderSpec, build_autoencoder
from aesearch.network.autoencoder import Autoencoder, pick_device, to_float
from aesearch.network.options import TrainingOptions
from aesearch.network.training import train_autoencoder
from aesearch.store.reader import Store
from aesearch.store.writer import StoreWriter
from aesearch.vectors.distances import prepare

Numbers = NDArray[np.float32]
MEGAPIXELS = (1, 2, 4, 8, 12)
SHOWN = 64  # longer side that photos are brought to
ROWS, DIM = 1_000_000, 64  # of the store
INDEXED = 300_000  # rows of the index
FILES = 100_000  # in the folder that changes


def tutorial_images(n: int) -> Subset:  # type: ignore[type-arg]
    """MNIST as tutorials open it."""
    root = os.environ.get("AESEARCH_DATA", "data")
    return Subset(torchvision.datasets.MNIST(root, train=True, transform=ToTensor()), range(n))


def tutorial_training(images: Subset, spec: AutoencoderSpec, batch_size: int) -> None:  # type: ignore[type-arg]
    """One epoch."""
    device = pick_device()
    model = build_autoencoder(spec).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss()
    running = 0.0
    for batch, _ in DataLoader(images, batch_size=batch_size, shuffle=True):
        batch = batch.to(device)
        loss = criterion(model["decoder"](model["encoder"](batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()


def tutorial_extraction(
    images: Subset,  # type: ignore[type-arg]
    model: nn.ModuleDict,
    batch_size: int,
    errors_too: bool,
) -> None:
    """Features of all images, and their reconstruction errors if asked."""
    device = pick_device()
    model = model.to(device).eval()
    features, errors = [], []
    with torch.no_grad():
        for batch, _ in DataLoader(images, batch_size=batch_size):
            batch = batch.to(device)
            latent = model["encoder"](batch)
            features.append(latent.cpu().numpy())
            if errors_too:
                errors.append(((model["decoder"](latent) - batch) ** 2).mean(dim=(1, 2, 3)).cpu().numpy())
    np.concatenate(features)


def apart(work: Callable[[], object]) -> Callable[[], float]:
    """In a process of its own, which stays: what training asks of the C library must not serve the plain way too."""
    process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    return lambda: process.submit(seconds, work).result()


def seconds(work: Callable[[], object]) -> float:
    """That it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(*works: Callable[[], object]) -> None:
    """One after the other: two things that each keep all cores busy are hardly quicker together."""
    for work in works:
        work()


def our_features(source: Source, autoencoder: Autoencoder) -> None:
    """Features alone, in memory."""
    groups = in_order(0, len(source), autoencoder.reading_size)
    batches = read_batches(source, autoencoder.spec.preprocessing, groups)
    np.concatenate([autoencoder.encode(batch.images) for batch in batches])


def compare(
    name: str, n: int, plain: tuple[str, Callable[[], object]], ours: tuple[str, Callable[[], object]], rounds: int,
    unit: str = "img/s",
) -> None:  # fmt: skip
    """Time both in turn and print medians of what is done in a second and of the ratio; a side may return seconds."""
    speeds = []
    for round_ in range(rounds + 1):
        pair = []
        for _, run in (plain, ours):
            started = time.perf_counter()
            took = run()
            pair.append(n / (took if isinstance(took, float) else time.perf_counter() - started))
        if round_:  # the first one warms up
            speeds.append(pair)
    table = np.array(speeds)
    ratio = np.median(table[:, 1] / table[:, 0])
    print(f"{name:34} {plain[0]} {np.median(table[:, 0]):,.0f} {unit}, {ours[0]} {np.median(table[:, 1]):,.0f} {unit}, "
          f"ratio {ratio:.2f}", flush=True)  # fmt: skip


# ---------------------------------------------------------------- networks


def networks() -> list[AutoencoderSpec]:
    """The tutorials' network and the default, for MNIST."""
    return [AutoencoderSpec.choose(arch, Preprocessing(28, 28, 1)) for arch in ("conv-pool", "conv")]


def training(options: argparse.Namespace) -> None:
    """One epoch in batches of 128, plain reconstruction on both sides, then ours with all that the default learns."""
    images, tutorial = load_mnist()["train"][: options.images], tutorial_images(options.images)
    loaded = LoadedImages(np.ascontiguousarray(images[:, None]))
    for spec in networks():
        for name, invariance in (("", "none"), (", default loss", "strong")):
            settings = TrainingOptions(spec.arch, loss="mse", epochs=1, batch_size=128, invariance=invariance)
            own = settings.spec(spec.preprocessing)
            plain = apart(partial(tutorial_training, tutorial, own, 128))
            ours = apart(partial(train_autoencoder, loaded, loaded.array[:1], own, settings))
            compare(
                f"training {spec.arch}{name}", len(images), ("tutorial loop", plain), ("aesearch", ours), options.rounds
            )


def extraction(options: argparse.Namespace) -> None:
    """Features alone, then all that is kept, against the loop in batches of 1,024; then against the bare encoder."""
    images, tutorial = load_mnist()["train"][: options.images], tutorial_images(options.images)
    for spec in networks():
        torch.manual_seed(0)
        model = build_autoencoder(spec)
        autoencoder = Autoencoder(model, spec)
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "images.npy", images)
            source, store = open_source(str(Path(folder) / "images.npy")), Path(folder) / "features.h5"
            everything = partial(extract_features, source, autoencoder, store, encoder_fingerprint="benchmark")
            features = partial(our_features, source, autoencoder)
            plain = partial(tutorial_extraction, tutorial, model, 1024)
            n, rounds, name = len(images), options.rounds, f"extraction {spec.arch}"
            loop = ("tutorial loop", partial(plain, errors_too=False))
            compare(f"{name}, features", n, loop, ("aesearch", features), rounds)
            compare(f"{name}, against the limit", n, bare_encoder(autoencoder, images), ("aesearch", features), rounds)
            loop = ("tutorial loop", partial(plain, errors_too=True))
            compare(f"{name}, all that is kept", n, loop, ("aesearch", everything), rounds)


def bare_encoder(autoencoder: Autoencoder, images: NDArray[np.uint8]) -> tuple[str, Callable[[], object]]:
    """The encoder over batches that lie in memory as it takes them, compiled if that works here."""
    encoder, size = autoencoder._model["encoder"], autoencoder.batch_size
    whole = torch.from_numpy(np.ascontiguousarray(images[:, None]))
    batches = [to_float(whole[s : s + size].to(autoencoder.device)) for s in range(0, len(whole), size)]
    name, forward = "compiled encoder", torch.compile(encoder)
    try:
        with torch.inference_mode():
            forward(batches[0])
    except Exception as error:  # no compiler: torch has many ways to say so
        name, forward = f"encoder (not compiled: {type(error).__name__})", encoder

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                forward(batch)
        if autoencoder.device.type == "cuda":
            torch.cuda.synchronize()

    return name, run


# ---------------------------------------------------------------- files


class Files(Dataset):  # type: ignore[type-arg]
    """Image files as tutorials read them."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths, self._transform = paths, ToTensor()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self._transform(Image.open(self._paths[place]).convert("RGB"))


def jpegs(options: argparse.Namespace) -> None:
    """A folder of 32x32 colour JPEGs: decoding alone, and extraction beside the slower of its two halves."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_small(Path(folder), load_mnist()["train"][: options.images])
        source = open_source(folder)
        spec = AutoencoderSpec.choose("conv", Preprocessing(32, 32, 3))
        torch.manual_seed(0)
        autoencoder = Autoencoder(build_autoencoder(spec), spec)
        groups = in_order(0, len(source), autoencoder.reading_size)
        images = np.concatenate([batch.images for batch in read_batches(source, spec.preprocessing, groups)])

        def plain(processes: int) -> None:
            for _ in DataLoader(Files(paths), batch_size=256, num_workers=processes):
                pass

        def ours() -> None:
            for _ in read_batches(source, spec.preprocessing, groups):
                pass

        def extracted() -> None:
            for _ in encode_source(source, autoencoder, groups):
                pass

        n, rounds = len(paths), options.rounds
        compare("small JPEGs, decoding", n, ("PIL + ToTensor", partial(plain, 0)), ("aesearch", ours), rounds)
        workers = (f"PIL + ToTensor, {cores()} DataLoader workers", partial(plain, cores()))
        compare("small JPEGs, decoding", n, workers, ("aesearch", ours), rounds)
        both = ("aesearch, files to features", partial(our_features, source, autoencoder))
        compare("small JPEGs, features", n, ("decoding alone", ours), both, rounds)
        alone = partial(autoencoder.encode, images)
        compare("small JPEGs, features", n, ("encoder alone", alone), both, rounds)
        compare("small JPEGs, features", n, ("one after the other", partial(in_turn, ours, alone)), both, rounds)
        whole = ("aesearch, files to features and errors", extracted)
        compare("small JPEGs, extraction", n, ("decoding alone", ours), whole, rounds)
        scored = partial(autoencoder.encode_and_score, images)
        compare("small JPEGs, extraction", n, ("encoder and decoder alone", scored), whole, rounds)
        compare("small JPEGs, extraction", n, ("one after the other", partial(in_turn, ours, scored)), whole, rounds)


def write_small(folder: Path, images: NDArray[np.uint8]) -> list[Path]:
    """Tinted digits of 32x32 pixels as JPEGs."""
    tints = np.random.default_rng(0).uniform(0.3, 1, (len(images), 3))
    paths = []
    for number, (image, tint) in enumerate(zip(images, tints, strict=True)):
        paths.append(folder / f"{number:06d}.jpg")
        pixels = np.pad(image, 2)[..., None] * tint
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def photos(options: argparse.Namespace) -> None:
    """Pictures of some megapixels, as files in memory, and how far the pixels lie from those of the plain way."""
    files = [photo(megapixels, seed) for seed, megapixels in enumerate(MEGAPIXELS * 2)]
    preprocessing = Preprocessing(SHOWN * 3 // 4, SHOWN, 3)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(files):
            (Path(folder) / f"{number:02d}.jpg").write_bytes(data)
        source = open_source(folder)

        def full(data: bytes) -> NDArray[np.uint8]:
            with Image.open(io.BytesIO(data)) as image:
                small = image.convert("RGB").resize((SHOWN, SHOWN * 3 // 4), Image.Resampling.BILINEAR)
            return np.asarray(small).transpose(2, 0, 1)

        def plain() -> list[NDArray[np.uint8]]:
            return [full(path.read_bytes()) for path in sorted(Path(folder).iterdir())]

        ours = partial(source.read, np.arange(len(source)), preprocessing)
        compare(
            "photos of 1 to 12 megapixels", len(files), ("PIL, full decode", plain), ("aesearch", ours), options.rounds
        )
        apart = [np.abs(full(d).astype(float) - decode(d, preprocessing)).mean() for d in files]
        print(
            f"photos: mean difference {np.mean(apart):.2f} grey levels of 255, largest of a photo {np.max(apart):.2f}"
        )


def photo(megapixels: int, seed: int) -> bytes:
    """A JPEG, 4:3, of noise at all scales."""
    generator = np.random.default_rng(seed)
    height, width = int((megapixels * 1e6 * 3 / 4) ** 0.5), int((megapixels * 1e6 * 4 / 3) ** 0.5)
    pixels = np.zeros((height, width, 3))
    for size in (4, 16, 64, 256, 1024):
        noise = Image.fromarray(generator.integers(0, 256, (size * 3 // 4, size, 3), dtype=np.uint8))
        pixels += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / size**0.5
    pixels *= 255 / pixels.max()
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


# ---------------------------------------------------------------- store, index, processes


def store(options: argparse.Namespace) -> None:
    """A million rows of 64 numbers with all that goes with them, against a raw file of as many bytes."""
    columns: dict[str, Any] = {
        "features": np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32),
        "reconstruction_error": np.zeros(ROWS, np.float32),
        "held_out": np.zeros(ROWS, bool),
        "stamp": np.full((ROWS, 2), -1),
        "id": [f"benchmark/{row}" for row in range(ROWS)],
        "label": [str(row % 10) for row in range(ROWS)],
        "split": [""] * ROWS,
        "content_hash": [f"{row:032x}" for row in range(ROWS)],
    }
    with tempfile.TemporaryDirectory() as folder:
        raw, ours = Path(folder) / "raw.bin", Path(folder) / "features.h5"
        write_store(ours, columns)
        data = np.zeros(ours.stat().st_size, np.uint8)

        def write_raw() -> None:
            with raw.open("wb") as file:
                data.tofile(file)
                file.flush()
                os.fsync(file.fileno())

        rounds = options.rounds
        writing = ("raw file", write_raw), ("aesearch", partial(write_store, ours, columns))
        compare("store, writing", int(data.nbytes / 1e6), *writing, rounds, "MB/s")
        opened, features = Store(ours), columns["features"]
        features.tofile(raw)
        reading = ("raw file", partial(np.fromfile, raw, np.float32)), ("aesearch", opened.features)
        compare("store, reading", int(features.nbytes / 1e6), *reading, rounds, "MB/s")


def write_store(path: Path, columns: dict[str, Any]) -> None:
    """Write rows as an extraction would, in groups of 20,000."""
    texts = {name: columns[name] for name in ("id", "label", "split")}
    with StoreWriter(path, DIM, {}, {"encoder_fingerprint": "", "source": "benchmark"}, texts=texts) as writer:
        for start in range(0, ROWS, 20_000):
            group = slice(start, start + 20_000)
            writer.append({name: values[group] for name, values in columns.items()}, [], start + 20_000)
        writer.finish()


def index(options: argparse.Namespace) -> None:
    """Building, and searching 1,000 queries at once."""
    features, queries = draw(INDEXED), draw(1000)
    for kind in ("flat", "hnsw", "ivf"):
        built = build_index(features, IndexOptions(kind=kind))
        name = built.figures["kind"]

        def bare(factory: str = name) -> None:
            made = faiss.index_factory(DIM, factory)
            vectors = prepare(features, "cosine")
            made.train(vectors)
            made.add(vectors)

        rounds = options.rounds

        def ours(kind: str = kind) -> float:
            return float(build_index(features, IndexOptions(kind=kind)).figures["seconds"])

        building = ("bare FAISS", bare), ("aesearch, without measuring recall", ours)
        compare(f"index {name}, building", INDEXED, *building, min(rounds, 3), "rows/s")
        vectors = prepare(queries, "cosine")
        searching = (
            ("bare FAISS, the same index", partial(built.index.search, vectors, 10)),
            ("aesearch", partial(built.search, queries, 10)),
        )
        compare(f"index {name}, searching", len(queries), *searching, rounds, "queries/s")
        print(f"index {name}: recall@10 {built.figures['recall_at_10']:.3f} on {HELD_OUT_QUERIES} rows it did not hold")


def update(options: argparse.Namespace) -> None:
    """A folder of many small JPEGs: 100 added, 50 changed, 50 removed, 20 renamed, against extracting it anew."""
    mnist = load_mnist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        many = mnist["train"][np.arange(FILES) % len(mnist["train"])]
        paths = write_small(folder, many)
        collection = Collection.build(str(folder), f"{name}/c", epochs=1, progress=False)
        new = write_small(Path(name), mnist["test"][:150])
        for path in new[:100]:
            path.rename(folder / f"new-{path.name}")
        for path, other in zip(paths[1000:1050], new[100:], strict=True):
            other.replace(path)
        for path in paths[2000:2050]:
            path.unlink()
        for path in paths[3000:3020]:
            path.rename(folder / f"renamed-{path.name}")
        ways: dict[str, Callable[[], Any]] = {
            "update after 220 changes": collection.update,
            "update without a change": collection.update,
            "extraction and index anew": lambda: (collection.extract(), collection.build_index()),
        }
        found = []
        for way, run in ways.items():
            began = time.perf_counter()
            found.append(run())
            seconds = time.perf_counter() - began
            print(f"update: {FILES:,} files, {way} {seconds:.2f} s", flush=True)
        print(f"update: {found[0].to_json()}")
        rows = np.random.default_rng(0).choice(collection.store.rows, 500, replace=False)
        again = collection.encode([str(folder / id) for id in collection.store.texts("id", rows)])
        print(f"update: 500 rows encoded again differ by {np.abs(again - collection.store.features(rows)).max():.1e}")


BARE = """
import sys, faiss, numpy, onnxruntime
from PIL import Image
folder, image = sys.argv[1:]
session = onnxruntime.InferenceSession(folder + "/encoder.onnx", providers=["CPUExecutionProvider"])
_, _, height, width = session.get_inputs()[0].shape
pixels = numpy.asarray(Image.open(image).convert("L").resize((width, height)))[None, None]
features = session.run(None, {"images": pixels})[0]
index = faiss.read_index(folder + "/index.faiss", faiss.IO_FLAG_MMAP)
print(index.search(numpy.ascontiguousarray(features[:, : index.d]), 10))
"""  # the least that a query can take: no names, no checks


def start(options: argparse.Namespace) -> None:
    """Whole processes, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        build_mnist(folder)
        ours = [sys.executable, "-m", "aesearch"]
        sides = {
            "import torch, torchvision": [sys.executable, "-c", "import torch, torchvision"],
            "bare script with ONNX Runtime, PIL and FAISS": [
                sys.executable,
                "-c",
                BARE,
                f"{folder}/c",
                f"{folder}/img.png",
            ],
            "aesearch query img.png": [*ours, "query", f"{folder}/img.png", "-k", "10", "-c", f"{folder}/c"],
            "aesearch --help": [*ours, "--help"],
            "aesearch info": [*ours, "info", "-c", f"{folder}/c"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds + 1):
            for name, command in sides.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - began)
        imports = np.array(seconds.pop("import torch, torchvision")[1:])
        print(f"start: importing torch and torchvision {np.median(imports):.2f} s")
        for name, times in seconds.items():
            print(f"start: {name} {np.median(times[1:]):.2f} s, ratio {np.median(np.array(times[1:]) / imports):.3f}")


def build_mnist(folder: str) -> None:
    """A collection ``c`` of all 70,000 images, and one of them as ``img.png``."""
    mnist = load_mnist()
    np.save(f"{folder}/all.npy", np.concatenate([mnist["train"], mnist["test"]]))
    Image.fromarray(mnist["test"][0]).save(f"{folder}/img.png")
    Collection.build(f"{folder}/all.npy", f"{folder}/c", epochs=1, progress=False)


def serve(options: argparse.Namespace) -> None:
    """What a page of ``aesearch serve`` waits for, milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        build_mnist(folder)
        Collection.open(f"{folder}/c").map(method="pca")
        command = [sys.executable, "-m", "aesearch", "serve", "-c", f"{folder}/c", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split(": ", 1)[1].split("  ")[0]
            image = Path(f"{folder}/img.png").read_bytes()
            asked: dict[str, Callable[[], requests.Response]] = {
                "neighbours of an image that is sent": lambda: requests.post(f"{address}api/query?k=20", data=image),
                "neighbours of a row": lambda: requests.get(f"{address}api/query?row=7&k=20"),
                "the image imagined at a place of the map": lambda: requests.get(
                    f"{address}api/map/imagine?method=pca&x=.1&y=.1"
                ),
                "one picture": lambda: requests.get(f"{address}api/images/7"),
            }
            for name, ask in asked.items():
                times = []
                for _ in range(50 * options.rounds + 1):
                    began = time.perf_counter()
                    ask().raise_for_status()
                    times.append(1000 * (time.perf_counter() - began))
                low, high = np.median(times[1:]), np.percentile(times[1:], 95)
                print(f"serve: {name} {low:.1f} ms, 95 % within {high:.1f} ms, the first {times[0]:.0f} ms", flush=True)
        finally:
            process.terminate()
            process.wait()


def gpu(options: argparse.Namespace) -> None:
    """The limits of a GPU: copies from pinned memory, and matrix products."""
    if not torch.cuda.is_available():
        print("gpu: waits for a CUDA device; training and extraction above then run on it")
        return
    pinned = torch.empty(2**28, dtype=torch.uint8).pin_memory()
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for name, work, amount, unit in (
        ("copy to the device", lambda: pinned.to("cuda", non_blocking=True), pinned.nbytes / 1e9, "GB/s"),
        ("bfloat16 products", lambda: a @ a, 2 * 8192**3 / 1e12, "TFLOP/s"),
    ):
        times = []
        for _ in range(options.rounds + 3):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        print(f"gpu: {name} {amount / np.median(times[3:]):,.0f} {unit}")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "training": training,
    "extraction": extraction,
    "jpegs": jpegs,
    "photos": photos,
    "store": store,
    "index": index,
    "update": update,
    "start": start,
    "serve": serve,
    "gpu": gpu,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_circumstances(images=options.images, rounds=options.rounds, seed=0)
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
