"""The server's API: the documents of ``--json``, one line for what is wrong, many at once, nobody else's pages."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import schemathesis
from conftest import NASTY, serving
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode

from aesearch.collection.facade import Collection
from aesearch.index.options import IndexOptions


def picture(answer):
    """(height, width, channels) of an answer that is one."""
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "image/webp", answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def said(run, folder, *arguments):
    return json.loads(run(*arguments, "-c", folder, "--json").stdout)


def test_it_answers_as_the_command_line_does(served, labelled, run):
    ask = lambda path, **query: requests.get(f"{served}api/{path}", params=query).json()  # noqa: E731
    info = said(run, labelled, "info")
    assert {name: ask("info")[name] for name in info} == info
    for where in ([], ["label=3"], ["label!=3", "cluster=1"], ["id=*12*"]):
        told = said(run, labelled, "query", "--row", 7, "-k", 4, *[a for w in where for a in ("--where", w)])
        answer = ask("query", row=7, k=4, where=where)
        for hit in answer["queries"][0]["hits"]:
            hit.pop("cluster")
        assert told.pop("failed") == [] and answer == told
    for options in ({"score": "reconstruction", "top": 3}, {"false_alarms": 0.2, "top": 5}, {"score": "neighbours"}):
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        assert ask("anomalies", **options) == said(run, labelled, "anomalies", *arguments)
    assert ask("duplicates") == said(run, labelled, "duplicates")
    assert {"0/000.png", f"0/{NASTY}"} <= {one["id"] for group in ask("duplicates")["groups"] for one in group}


def test_an_image_from_elsewhere_is_searched_for_and_rebuilt(served, labelled, run):
    file = labelled.parent / "photos/4/004.png"
    told = said(run, labelled, "query", file, "-k", 5)["queries"][0]["hits"]
    data = file.read_bytes()
    found = requests.post(f"{served}api/query", params={"k": 5}, data=data).json()["queries"][0]
    assert [(h["row"], h["distance"]) for h in found["hits"]] == [(h["row"], h["distance"]) for h in told]
    assert found["hits"][0]["id"] == "4/004.png" and found["hits"][0]["distance"] < 1e-5
    row = found["hits"][0]["row"]
    (rebuilt,), (own,) = ([requests.post(f"{served}api/reconstruct", data=data).json()],
                          [requests.get(f"{served}api/reconstruct/{row}").json()])  # fmt: skip
    assert rebuilt == own and rebuilt["error"] == pytest.approx(
        Collection.open(labelled).store.reconstruction_errors()[row], rel=1e-3
    )
    latent = requests.post(f"{served}api/latents", data=data).json()["latent"]
    np.testing.assert_allclose(latent, requests.get(f"{served}api/latents/{row}").json()["latent"], atol=1e-4)
    strip = picture(requests.post(f"{served}api/decode", json={"latents": [latent, latent[::-1], latent]}))
    shown = Collection.open(labelled).decode(np.array([latent], np.float32))[0, 0]
    assert strip.shape[:2] == (8, 24) and np.abs(strip[:, :8, 0] / 255 - shown).max() < 0.01
    assert (strip[:, :8] == strip[:, 16:]).all() and (strip[:, :8] != strip[:, 8:16]).any()


def test_pictures_are_those_of_the_rows(served, labelled, digit_images):
    ids = Collection.open(labelled).ids
    for row in (0, 80, 160):
        shown = picture(requests.get(f"{served}api/images/{row}"))[..., 0]
        number = 0 if NASTY in ids[row] else int(ids[row].split("/")[1][:3])
        assert (shown == digit_images[number]).all()
        assert picture(requests.get(f"{served}api/images/{row}/heat")).shape == (8, 8, 3)
    centre = picture(requests.get(f"{served}api/clusters/2/centre"))
    assert centre.shape[:2] == (8, 8) and centre.std() > 5
    data = requests.get(f"{served}api/map", params={"method": "pca"}).json()
    assert (
        len(data["names"]) == 161 and picture(requests.get(served[:-1] + data["atlas"]["sheets"][0])).shape[1] == 2048
    )


def test_a_place_on_the_map_is_imagined_from_what_lies_around_it(served, labelled):
    places = Collection.open(labelled).read_rows("map-pca")["coordinates"]
    at = {"method": "pca", "x": float(places[5, 0]), "y": float(places[5, 1])}
    on_it = requests.get(f"{served}api/map/imagine", params=at).json()
    assert on_it["rows"][0] == 5
    np.testing.assert_allclose(on_it["latent"], Collection.open(labelled).latents()[5], atol=1e-3)
    far = requests.get(f"{served}api/map/imagine", params={"method": "pca", "x": 50, "y": 50}).json()
    assert set(far["rows"]) == set(np.argsort(np.hypot(*(places - 50).T))[:8].tolist())


WRONG = [
    ("get", "query", {"row": 100_000}, 400, "rows go from 0 to 160"),
    ("get", "query", {}, 400, "give one of"),
    ("get", "query", {"row": "x"}, 422, "row: "),
    ("get", "query", {"row": 1, "where": "colour=3"}, 400, "--where"),
    ("get", "query", {"row": 1, "where": "label=99"}, 400, "no image has"),
    ("get", "images/5000", {}, 400, "rows go"),
    ("get", "anomalies", {"score": "odd"}, 400, "is not one of"),
    ("get", "anomalies", {"score": "nap"}, 404, "run aesearch anomalies --score nap"),
    ("get", "anomalies", {"false_alarms": 1e-4}, 400, "needs"),
    ("get", "map", {"method": "umap"}, 404, "aesearch map --method umap"),
    ("get", "map/sheets/7", {}, 404, "no sheet 7"),
    ("get", "clusters/9/centre", {}, 404, "a cluster 9"),
    ("get", "nothing", {}, 404, "Not Found"),
    ("get", "../../etc/passwd", {}, 404, "Not Found"),
    ("post", "query", {}, 400, "empty"),
    ("put", "info", {}, 405, "Not Allowed"),
]


@pytest.mark.parametrize(("method", "path", "query", "code", "message"), WRONG)
def test_what_is_wrong_gets_one_line(served, method, path, query, code, message):
    answer = requests.request(method, f"{served}api/{path}", params=query, data=b"")
    assert answer.status_code == code and message in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_bad_images_are_refused_like_any(served, mixed_folder):
    for name, reason in (("bomb.png", "pixels"), ("broken.jpg", "broken"), ("notes.md", "not an image")):
        answer = requests.post(f"{served}api/query", data=(mixed_folder / name).read_bytes())
        assert answer.status_code == 400 and reason in answer.json()["error"]
    assert requests.post(f"{served}api/query", data=iter([b"x"])).status_code == 411  # of no told length
    both = {"Content-Length": "1", "Transfer-Encoding": "chunked"}
    assert requests.post(f"{served}api/query", data=b"1\r\nx\r\n0\r\n\r\n", headers=both).status_code == 411
    for kind in ("application/json", "Application/JSON", "application/x+json", "text/plain"):
        big = requests.post(f"{served}api/rows", data=b"[" * 3_000_000, headers={"Content-Type": kind})
        assert big.status_code == 413 and "bytes" in big.json()["error"]
    deep = requests.post(f"{served}api/rows", data=b"[" * 1_000_000, headers={"Content-Type": "application/json"})
    assert deep.status_code == 400 and "\n" not in deep.json()["error"]


def test_it_answers_this_machine_s_own_pages_only(served):
    info = f"{served}api/info"
    assert requests.get(info, headers={"Host": "evil.example"}).status_code == 421
    assert requests.get(info, headers={"Host": "localhost:1234"}).status_code == 200  # as through a tunnel
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert requests.get(info, headers=headers).status_code == 403
        assert requests.put(f"{served}api/clusters/0/name", json={"name": "x"}, headers=headers).status_code == 403
    page = requests.get(served, headers={"Sec-Fetch-Site": "cross-site"})
    assert page.status_code == 200 and page.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'self'"
    )
    assert requests.get(f"{served}static/serve.js").status_code == 200
    assert (
        requests.get(f"{served}static/..%2f..%2fcli.py").status_code == requests.get(f"{served}docs").status_code == 404
    )


def test_others_need_the_token(labelled):
    with serving(labelled, "--host", "0.0.0.0") as (address, _):
        port, token = address.split(":")[2].split("/")[0], address.split("token=")[1]
        base = f"http://127.0.0.1:{port}/"
        for headers in ({}, {"Authorization": "Bearer x"}, {"Cookie": f"aesearch-{port}=x"}, {"Cookie": "aesearch"}):
            refused = requests.get(f"{base}api/info", headers=headers)
            assert refused.status_code == 401 and "token" in refused.json()["error"]
        assert requests.get(base).status_code == requests.get(f"{base}?token=y").status_code == 401
        assert requests.get(f"{base}api/info", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        session = requests.Session()
        entered = session.get(f"{base}?token={token}")
        assert entered.url == base and "<main" in entered.text and session.get(f"{base}api/info").status_code == 200
        assert "HttpOnly" in str(entered.history[0].headers["Set-Cookie"])
        for before in ('x={"a":1}; ', "a=b c; ", "flag; "):  # others' cookies, on other ports
            cookie = {"Cookie": f"{before}aesearch-{port}={token}"}
            assert requests.get(f"{base}api/info", headers=cookie).status_code == 200


def test_two_hundred_at_once(served, labelled):
    data = (labelled.parent / "photos/4/004.png").read_bytes()
    paths = [
        "info",
        "query?row=3",
        "images/7",
        "images/9/heat",
        "clusters",
        "anomalies",
        "values",
        "duplicates",
        "map?method=pca",
    ]

    def ask(number):
        if number % 10 == 9:
            return requests.post(f"{served}api/query", data=data, timeout=60)
        return requests.get(f"{served}api/{paths[number % 10]}", timeout=60)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {a.status_code for a in answers} == {200}
    for number in range(10):  # who asks the same is told the same
        assert len({a.content for a in answers[number::10]}) == 1


def test_what_changes_underneath_is_noticed(labelled, tmp_path, digit_images):
    shutil.copytree(labelled.parent / "photos", tmp_path / "photos")
    Collection.build(str(tmp_path / "photos"), tmp_path / "c", labels="folder", progress=False, epochs=1, latent_dim=4)
    with serving(tmp_path / "c") as (address, _):
        before = requests.get(f"{address}api/query", params={"row": 0})
        assert requests.get(f"{address}api/clusters").status_code == 404
        Image.fromarray(digit_images[500]).save(tmp_path / "photos/0/500.png")
        (tmp_path / "photos/9/009.png").unlink()
        collection = Collection.open(tmp_path / "c", progress=False)
        collection.update()
        after = requests.get(f"{address}api/query", params={"row": 0, "k": 161})
        assert before.headers["X-Collection"] != after.headers["X-Collection"]
        ids = {hit["id"] for hit in after.json()["queries"][0]["hits"]}
        assert "0/500.png" in ids and "9/009.png" not in ids
        collection.cluster(method="kmeans", clusters=2, space="features")
        assert requests.get(f"{address}api/clusters").json()["clusters"] == 2
        named = requests.put(f"{address}api/clusters/1/name", json={"name": " round  ones"}).json()
        assert named["names"] == ["0", "round ones"]
        values = {one["value"] for one in requests.get(f"{address}api/values").json()["cluster"]}
        assert values == {"0", "round ones"}
        stale = requests.put(f"{address}api/clusters/1/name", params={"version": "of old"}, json={"name": "x"})
        assert stale.status_code == 409 and "has changed" in stale.json()["error"]
        version = requests.get(f"{address}api/info").json()["version"]
        assert requests.get(f"{address}api/images/0", params={"version": version}).status_code == 200
        assert requests.get(f"{address}api/images/0", params={"version": "of old"}).status_code == 409
        for name, code in (("7", 400), ("none", 400), ("x" * 200, 400), ("x" * 2000, 422)):
            assert requests.put(f"{address}api/clusters/1/name", json={"name": name}).status_code == code
        assert Collection.open(tmp_path / "c").cluster_names() == ["0", "round ones"]
        listed = requests.post(f"{address}api/rows", json={"where": ["cluster=round*"]}).json()
        assert listed["rows"][0]["cluster"] == "round ones" and 0 < listed["total"] < 161
        other = Collection.build(str(tmp_path / "photos"), tmp_path / "c", labels="folder", progress=False, epochs=1,
                                 latent_dim=5, overwrite=True)  # fmt: skip
        assert len(requests.get(f"{address}api/latents/3").json()["latent"]) == 5
        shutil.rmtree(other.folder)
        assert requests.get(f"{address}api/query", params={"row": 0}).status_code in (404, 409)


def test_what_is_gone_or_emptied_is_said(labelled, tmp_path):
    """Files that are gone, a cluster without images after an update, a read-only folder, scores of another metric."""
    shutil.copytree(labelled.parent / "photos", tmp_path / "photos")
    made = Collection.build(
        str(tmp_path / "photos"), tmp_path / "c", labels="folder", progress=False, epochs=1, latent_dim=4
    )
    made.cluster(method="kmeans", clusters=4, space="features")
    made.anomalies(score="combined", top=1)
    middle = np.flatnonzero(made.assignments() == 1)
    for id in [made.ids[row] for row in middle]:
        (tmp_path / "photos" / id).unlink()
    with serving(tmp_path / "c") as (address, _):
        assert requests.get(f"{address}api/images/{middle[0]}").status_code == 200  # a blank
        assert requests.get(f"{address}api/images/{middle[0]}/heat").status_code == 404
        Collection.open(tmp_path / "c", progress=False).update(yes=True)
        answer = requests.get(f"{address}api/clusters").json()
        assert answer["sizes"][1] == 0 and answer["nearest"][1] == [] and answer["clusters"] == 4
        assert requests.get(f"{address}api/clusters/1/centre").status_code == 404
        Collection.open(tmp_path / "c", progress=False).build_index(IndexOptions(metric="l2"))
        for _ in range(2):
            refused = requests.get(f"{address}api/anomalies")
            assert refused.status_code == 404 and "run aesearch anomalies" in refused.json()["error"]
        assert requests.get(f"{address}api/anomalies?score=neighbours&false_alarms=.3").status_code == 200


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it(labelled, number, code):
    with serving(labelled) as (address, process):
        assert requests.get(f"{address}api/info").status_code == 200
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(10) == code and time.monotonic() - began < 5


def test_a_taken_port_is_said(run, labelled):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = run("serve", "-c", labelled, "--port", taken.getsockname()[1], code=1).stderr
    assert "in use" in line and "--port" in line
    assert "no collection" in run("serve", "-c", "nowhere", code=1).stderr
    assert "cannot listen" in run("serve", "-c", labelled, "--host", "no.such.host.invalid", code=1).stderr


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_api_is_as_it_says(labelled, tmp_path, mode):
    shutil.copytree(labelled, tmp_path / "c")  # clusters get strange names
    with serving(tmp_path / "c") as (address, _):
        schema = schemathesis.openapi.from_url(f"{address}api/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) == 21
        for operation in operations:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def holds(case):
                # that a row exists, or bytes are an image, no schema can say
                case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])

            with contextlib.suppress(Unsatisfiable):  # where nothing is asked for, nothing can be asked wrongly
                holds()
