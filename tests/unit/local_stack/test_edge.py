"""The edge's template: what is filled in, and that nginx takes it."""

import re
import subprocess
from pathlib import Path

import pytest

from local_stack.edge import TEMPLATE, edge, fill_in, origins, servers
from local_stack.errors import SettingError
from local_stack.part import Part, system_env
from local_stack.ports import Ports


def part(home: Path, cors_origins: str = "http://localhost:3000") -> Part:
    return edge(home, Ports.from_base(8000), 2, cors_origins, system_env({}))


def test_only_the_edges_own_names_are_filled_in() -> None:
    template = "# ${EDGE_A} is explained here\nlisten ${EDGE_A}; set $host ${host};\n"
    assert fill_in(template, {"EDGE_A": "8000"}) == "# ${EDGE_A} is explained here\nlisten 8000; set $host ${host};\n"


def test_every_name_in_the_template_is_explained_at_its_top() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert set(re.findall(r"\$\{EDGE_\w+\}", text)) == set(re.findall(r"\$\{EDGE_\w+\}", comments)) != set()


def test_a_replica_that_was_down_is_asked_again() -> None:
    assert servers([8010, 8011]) == "server 127.0.0.1:8010 max_fails=0; server 127.0.0.1:8011 max_fails=0;"


def test_each_origin_is_answered_with_itself() -> None:
    lines = origins("https://a.example, http://localhost:5173,")
    assert lines == '"https://a.example" $http_origin; "http://localhost:5173" $http_origin;'


@pytest.mark.parametrize("cors_origins", ["*", "https://a.example, *"])
def test_all_origins_are_answered_alike_when_any_is_allowed(cors_origins: str) -> None:
    assert origins(cors_origins) == '"~." "*";'


@pytest.mark.parametrize("wrong", ["a.example", "https://a.example/path", 'https://a"; return 200', "https://a b"])
def test_what_is_no_origin_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(SettingError, match="CORS_ORIGINS"):
        origins(wrong)


@pytest.mark.parametrize("cors_origins", ["", "*", "https://a.example,http://localhost:5173"])
def test_nginx_takes_the_filled_template(tmp_path: Path, cors_origins: str) -> None:
    made = part(tmp_path / "a home", cors_origins)
    for folder in made.folders:
        folder.mkdir(parents=True)
    for path, text in made.files.items():
        path.write_text(text, encoding="utf-8")
    check = subprocess.run([*made.command, "-t"], env=made.env, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def test_an_address_in_the_log_has_no_query() -> None:
    """A webhook's query holds its signature."""
    text = TEMPLATE.read_text(encoding="utf-8")
    log_format = text[text.index("log_format") : text.index("access_log")]
    assert not set(re.findall(r"\$(\w+)", log_format)) & {"request", "request_uri", "args", "query_string", "uri"}
    assert re.search(r"^error_log stderr crit;$", text, flags=re.MULTILINE)
