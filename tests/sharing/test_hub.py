"""The Hub client against a server on this machine, which keeps what is committed to it."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvxnn
from cvxnn import LinearPreferenceHead
from cvxnn.cli.main import main
from cvxnn.sharing import from_pretrained, model_card, push_to_hub
from cvxnn.training import SideConstraint

hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn(ThreadingHTTPServer):
    """What the client asks of the Hub, for one repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, Any] = {}
        self.commits = 0
        self.refuses = False


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            return self.answer({"error": "Unauthorized"}, 401)
        host, port = self.server.server_address[:2]
        address = f"http://{host!s}:{port}"
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.repositories:
                return self.answer({"url": f"{address}/{name}"}, 409)
            self.server.repositories[name] = asked
            return self.answer({"url": f"{address}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            ways = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            return self.answer({"files": [{**way, "shouldIgnore": False} for way in ways]})
        assert "/commit/" in self.path, self.path
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                value = item["value"]
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        self.server.commits += 1
        name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        url = f"{address}/{name}/commit/{COMMIT}"
        return self.answer({"commitUrl": url, "commitOid": COMMIT})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path == "/":
            return self.answer({})
        owner, name, *rest = self.path.removeprefix("/").split("/")
        content = self.server.files.get(rest[-1])
        if f"{owner}/{name}" not in self.server.repositories:
            return self.answer({}, 404, {"X-Error-Code": "RepoNotFound"})
        if content is None:
            return self.answer({}, 404, {"X-Error-Code": "EntryNotFound"})
        return self.answer(content, 200, {"ETag": f'"{hash(content)}"', "X-Repo-Commit": COMMIT})

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Write nothing."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def is_private(asked: dict[str, Any]) -> bool:
    """Newer clients name the visibility."""
    return asked.get("private") is True or asked.get("visibility") == "private"


def client(server: StandIn) -> Any:
    return hub.HfApi("http://{}:{}".format(*server.server_address[:2]), token=False)


EMBEDDING = {
    "model": "/home/somebody/secret/tiny",
    "fingerprint": "a",
    "fingerprint_float16": "b",
    "fingerprint_bfloat16": "c",
    "dtype": "float32",
    "layer": 1,
    "pooling": "mean",
    "max_length": 64,
    "date": "2024-07-26",
    "context": 0,
    "width": 3,
}


@pytest.fixture(scope="module")
def head() -> LinearPreferenceHead:
    won, lost = np.random.default_rng(0).standard_normal((2, 30, 3))
    return LinearPreferenceHead(C=1.0, embedding=EMBEDDING).fit_pairs(won + 1, lost)


def test_what_is_pushed_comes_back(
    head: LinearPreferenceHead, stand_in: StandIn, tmp_path: Path
) -> None:
    api = client(stand_in)
    url = push_to_hub(head, "somebody/head", notes="For *tests*.", api=api)
    assert url.endswith(COMMIT)
    assert stand_in.commits == 1
    assert is_private(stand_in.repositories["somebody/head"])
    assert sorted(stand_in.files) == ["README.md", "model.safetensors"]
    assert stand_in.files["README.md"].decode().endswith("## Notes\n\nFor *tests*.\n")
    back = from_pretrained("somebody/head", cache_dir=tmp_path, api=api)
    rows = np.random.default_rng(1).standard_normal((5, 3))
    np.testing.assert_array_equal(back.reward(rows), head.reward(rows))
    assert back.embedding == EMBEDDING
    push_to_hub(head, "somebody/head", api=api)  # the repository is there already
    assert stand_in.commits == 2


def test_what_is_not_there_is_named(stand_in: StandIn, tmp_path: Path) -> None:
    api = client(stand_in)
    with pytest.raises(FileNotFoundError, match=r"nobody/none: not found on the Hub.*hf auth"):
        from_pretrained("nobody/none", cache_dir=tmp_path, api=api)
    stand_in.repositories["some/other"] = {}
    with pytest.raises(FileNotFoundError, match=r"some/other: no file model\.safetensors"):
        from_pretrained("some/other", cache_dir=tmp_path, api=api)


def test_a_hub_that_cannot_be_reached_or_written_is_named(
    head: LinearPreferenceHead, stand_in: StandIn, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = hub.HfApi(f"http://127.0.0.1:{server.getsockname()[1]}", token=False)
    with pytest.raises(OSError, match=r"cannot be reached.*refused.*nothing was uploaded to a/b"):
        push_to_hub(head, "a/b", api=nobody)
    with pytest.raises(OSError, match=r"cannot download a/b.*refused.*cvxnn\.load"):
        from_pretrained("a/b", cache_dir=tmp_path, api=nobody)
    stand_in.refuses = True
    with pytest.raises(PermissionError, match=r"does not let you write a/b.*hf auth login"):
        push_to_hub(head, "a/b", api=client(stand_in))


def test_other_contents_are_refused_and_run_nothing(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.repositories["some/pickle"] = {}
    ran = tmp_path / "ran"
    pickled = f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode()
    stand_in.files["model.safetensors"] = pickled
    with pytest.raises(ValueError, match="is a text; expected a file written by"):
        from_pretrained("some/pickle", cache_dir=tmp_path / "cache", api=client(stand_in))
    assert not ran.exists()


@pytest.mark.parametrize(
    "call", [lambda h: push_to_hub(h, "a/b"), lambda _: from_pretrained("a/b")]
)
def test_the_extra_is_named(
    head: LinearPreferenceHead, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"'huggingface_hub'.*cvxnn\[hub\]"):
        call(head)


def measurements(head: LinearPreferenceHead) -> dict[str, Any]:
    row = {"accuracy": 0.75, "standard_error": 0.1, "interval": [0.6, 0.86]}
    bias = {"chosen_length": 20.0, "rejected_length": 11.0, "correlation": 0.25}
    bias |= {"longer": 30, "longer_accuracy": 0.9, "shorter": 10, "shorter_accuracy": None}
    return {
        "measured": {"method": "linear", "certificate": {}, **row},
        "baselines": {"longer reply wins": {**row, "accuracy": 0.5, "interval": [0.35, 0.65]}},
        "held_out_pairs": 40,
        "held_out_groups": 20,
        "length_bias": bias,
        "embedding": head.embedding,
    }


def test_card_of_a_fit_under_side_constraints_says_so() -> None:
    X = np.random.RandomState(0).randn(30, 2)
    model = cvxnn.ConvexReLURegressor(n_patterns=4, random_state=0).fit(X, X[:, 0])
    fair = model.constrained(X, X[:, 0], [SideConstraint.uncorrelated(X, X[:, 0])])
    said = "satisfies the same side constraints"
    assert said not in model_card(model, "a/b")
    card = model_card(fair, "a/b")
    assert said in card
    assert "of the fit: 1." in card
    assert f"{fair.prices_[0, 0]:.3g}" in card


def test_card_says_what_was_measured(head: LinearPreferenceHead) -> None:
    card = model_card(head, "a/b", measurements=measurements(head))
    assert "| linear head | 0.750 [0.600, 0.860] |" in card
    assert "| longer reply wins | 0.500 [0.350, 0.650] |" in card
    assert "20 characters chosen, 11 rejected" in card
    assert "the longer one (30 pairs): accuracy 0.900" in card
    assert "the shorter one (10 pairs): none" in card
    assert "correlation 0.25" in card
    assert "| max_length | `64` |" in card
    assert "somebody/secret" not in card
    assert 'load_model("path/to/tiny")' in card
    with pytest.raises(ValueError, match="of another head"):
        model_card(head, measurements={**measurements(head), "embedding": None})
    with pytest.raises(ValueError, match="have no certificate"):
        model_card(head, measurements={"held_out_pairs": 3})


def test_card_of_what_is_unknown() -> None:
    X = np.random.default_rng(0).standard_normal((20, 2))
    model = cvxnn.ConvexReLUClassifier(n_patterns=4, strength=0.1, random_state=0).fit(
        X, X[:, 0] > 0
    )
    card = model_card(model)
    assert card.startswith("---\nlibrary_name: cvxnn\n")
    assert f"objective {model.objective_:.5f}" in card
    assert "Unknown: no measurements" in card
    assert "Length of replies" not in card
    assert 'estimator = from_pretrained("OWNER/NAME")' in card


def test_command_writes_the_card_and_pushes(
    head: LinearPreferenceHead,
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, card = tmp_path / "head.safetensors", tmp_path / "card.md"
    cvxnn.save(head, file)
    api = client(stand_in)
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    assert main(["push", str(file), "a/b", "--card-only", str(card)]) == 0
    assert "head.json: the card says that nothing was measured" in capsys.readouterr().err
    assert not stand_in.commits
    file.with_suffix(".json").write_text(json.dumps(measurements(head)))
    assert main(["push", str(file), "a/b", "--no-private"]) == 0
    assert COMMIT in capsys.readouterr().out
    assert not is_private(stand_in.repositories["a/b"])
    assert "| linear head | 0.750" in stand_in.files["README.md"].decode()
    assert main(["push", str(file), "name"]) == 2
    assert "not of the form OWNER/NAME" in capsys.readouterr().err
