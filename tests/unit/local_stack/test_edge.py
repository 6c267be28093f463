"""The edge's template: what is filled in, and that nginx takes it."""

import re
import subprocess
from pathlib import Path

import pytest

from contracts import problems, webhook
from contracts.problems import ProblemKind
from gateway.webhook.calls import LONGEST_ESCAPE
from local_stack.edge import TEMPLATE, edge, fill_in, hosts, origins, servers, webhook_limits
from local_stack.errors import SettingError
from local_stack.part import Part, system_env
from local_stack.ports import Ports
from notifier.hub import MAX_STREAMS

SETTINGS = {
    "CORS_ORIGINS": "http://localhost:3000",
    "EDGE_HOSTS": "",
    "WEBHOOK_URL": "http://127.0.0.1:8000/tokens/webhook/analysis-complete",
    "MAX_RESULT_BYTES": "1048576",
}
OWN = '"localhost" ""; "127.0.0.1" ""; "[::1]" "";'


def part(home: Path, **settings: str) -> Part:
    return edge(home, Ports.from_base(8000), 2, SETTINGS | settings, system_env({}))


def number_of(directive: str) -> int:
    """The number that a directive of the template has."""
    found = re.findall(rf"^ *{directive} (\d+);", TEMPLATE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(found) == 1, directive
    return int(found[0])


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


def test_the_edge_answers_to_this_machines_names_and_to_that_of_the_webhook() -> None:
    assert hosts("", SETTINGS["WEBHOOK_URL"]) == OWN
    assert hosts("", "https://Sori.example:8443/hook") == f'{OWN} "sori.example" "";'
    assert hosts("", "http://user:password@[fe80::1]:80/hook") == f'{OWN} "[fe80::1]" "";'
    assert hosts("a.example, *.b.example,", "") == f'{OWN} "a.example" ""; "*.b.example" "";'


def test_the_edge_answers_to_any_name_when_it_is_told_so() -> None:
    assert hosts("a.example, *", SETTINGS["WEBHOOK_URL"]) == '"~." "";'


@pytest.mark.parametrize("wrong", ["a.example:8000", "https://a.example", 'a" ""; "b', "a b", "a.*", "~.*", ""])
def test_what_is_no_host_name_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(SettingError, match="EDGE_HOSTS"):
        hosts(f"a.example,{wrong or '-'}", SETTINGS["WEBHOOK_URL"])


@pytest.mark.parametrize("max_result_bytes", [1, 100, 1048576, 9_999_999, 10_000_000])
def test_the_edge_buffers_every_webhook_body_that_a_gateway_reads(max_result_bytes: int) -> None:
    limits = webhook_limits(str(max_result_bytes))
    read = LONGEST_ESCAPE * max_result_bytes + webhook.ENVELOPE_BYTES
    assert read <= int(limits["EDGE_WEBHOOK_BYTES"]) < 10 * read, "and not much more"
    assert len(limits["EDGE_WEBHOOK_BYTES"]) == int(limits["EDGE_WEBHOOK_DIGITS"])


def test_what_is_no_number_of_bytes_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match="MAX_RESULT_BYTES"):
        webhook_limits("1 MiB")


def test_one_edge_process_holds_more_streams_than_a_notifier_and_one_address_cannot_take_them_all() -> None:
    connections, of_an_address = number_of("worker_connections"), number_of("limit_conn addresses")
    # A stream has a connection on either side, and nginx begins to close idle ones when a sixteenth is left.
    streams = connections * 15 // 16 // 2
    assert MAX_STREAMS < of_an_address < streams * 0.8
    assert connections < number_of("worker_rlimit_nofile")


SAID = [problems.BAD_REQUEST, problems.SIGNATURE_INVALID, problems.NOT_FOUND, problems.BODY_TOO_LARGE]


@pytest.mark.parametrize("kind", [*SAID, problems.INTERNAL_ERROR], ids=lambda kind: kind.code)
def test_the_edge_says_what_the_services_say(kind: ProblemKind) -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    for words in (*kind.korean, *kind.english, kind.code):
        assert words in text


@pytest.mark.parametrize("edge_hosts", ["", "*", "sori.example,*.a.example,[fe80::1]"])
@pytest.mark.parametrize("cors_origins", ["", "*", "https://a.example,http://localhost:5173"])
def test_nginx_takes_the_filled_template(tmp_path: Path, cors_origins: str, edge_hosts: str) -> None:
    made = part(tmp_path / "a home", CORS_ORIGINS=cors_origins, EDGE_HOSTS=edge_hosts)
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
