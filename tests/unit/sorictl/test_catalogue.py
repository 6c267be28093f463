"""What sorictl reads from a catalogue's file, what it writes, and what it says is wrong, by line."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.addresses import CatalogueAddresses
from contracts.catalogue import MAX_SCRIPTS, Actor, Script, Token, document
from contracts.names import is_plain
from sorictl import cli, csv_files, json_files
from sorictl.csv_files import parse_array, written_array
from sorictl.imports import Changes, PresentRows, changes
from sorictl.rows import COLUMNS, TABLES, File

TOKEN = {"id": 1, "token_name": "한산도", "actor_name": "최민식", "start_time": 1.5, "end_time": 4}
SCRIPT = {"id": 1, "token_id": 1, "start_time": 1.5, "end_time": 2.5, "script": "Charge!"}
ACTOR = {"id": 1, "name": "최민식", "aliases": ["Choi Min-sik"]}


def of_json(document: Any) -> File:
    return File(json_files.read(json.dumps(document, ensure_ascii=False, indent=1)))


def of_csv(text: str) -> File:
    return File(csv_files.read(text))


def said(file: File) -> list[tuple[int, str]]:
    return [(problem.line, problem.said) for problem in sorted(file.problems)]


def rows_of(file: File) -> dict[str, list[dict[str, Any]]]:
    return {table: [row.value.model_dump() for row in rows] for table, rows in file.rows.items()}


def kept(**tables: Sequence[Mapping[str, Any]]) -> PresentRows:
    """A catalogue that has these rows, at their third revision."""
    documents = {
        table: {
            row["id"]: {**document(TABLES[table].model_validate(row)), "revision": 3} for row in tables.get(table, [])
        }
        for table in TABLES
    }
    return PresentRows(
        documents,
        documents["tokens"].keys(),
        {script: found["token_id"] for script, found in documents["scripts"].items()},
        {found["name_key"]: actor for actor, found in documents["actors"].items()},
    )


def written(changes: Changes) -> dict[str, list[tuple[int, int]]]:
    """Which rows are written, by id and revision."""
    return {
        table: [(row["_id"], row["revision"]) for row in changes.new[table] + changes.changed[table]]
        for table in TABLES
        if changes.new[table] or changes.changed[table]
    }


def test_every_field_of_a_row_has_a_column() -> None:
    for table, columns in COLUMNS.items():
        assert sorted(columns) == sorted(TABLES[table].model_fields)


def test_what_postgresql_writes_is_read_as_it_means_it() -> None:
    tokens = of_csv(
        "id,token_name,actor_name,category,start_time,end_time,s3_textgrid_url,s3_pitch_url,s3_bgvoice_url,"
        "youtube_url,thumbnail_url,view_count\n"
        '7,"Say ""when"", please",최민식,,61.5,66,tg/7.TextGrid,,,https://youtu.be/x?a=1,,12\n'
    )
    assert tokens.problems == []
    [token] = [row.value for row in tokens.rows["tokens"]]
    assert isinstance(token, Token)
    assert (token.token_name, token.category, token.start_time) == ('Say "when", please', None, 61.5)
    assert (token.s3_textgrid_url, token.s3_pitch_url, token.view_count) == ("tg/7.TextGrid", None, 12)
    scripts = of_csv('translation,id,token_id,start_time,end_time,script\n,3,7,61.5,63,"Two\nlines, ""quoted"""\n')
    [script] = [row.value for row in scripts.rows["scripts"]]
    assert isinstance(script, Script)
    assert (script.script, script.translation) == ('Two\nlines, "quoted"', None)
    actors = of_csv(
        'id,name,aliases\r\n1,최민식,"{민식,""Choi, Min-sik"",""a \\""b\\"" \\\\c""}"\r\n2,B,{}\r\n3,C,\r\n'
    )
    assert actors.problems == []
    aliases = [row.value.aliases for row in actors.rows["actors"] if isinstance(row.value, Actor)]
    assert aliases == [["민식", "Choi, Min-sik", 'a "b" \\c'], [], []]


@pytest.mark.parametrize(
    ("text", "aliases"),
    [
        ("{}", []),
        ("{ }", []),
        ("{a}", ["a"]),
        ("{a b , c}", ["a b", "c"]),
        ('{"NULL","a,b","{}"}', ["NULL", "a,b", "{}"]),
        (r'{a\"b,"\\",c\,d}', ['a"b', "\\", "c,d"]),
    ],
)
def test_arrays_are_read(text: str, aliases: list[str]) -> None:
    assert parse_array(text) == aliases


@pytest.mark.parametrize(
    "text", ["", "a", "{a", "{a,}", "{,a}", '{"a}', "{a}b", "{{a}}", "{NULL}", "{a,null}", '{a"b"}']
)
def test_what_is_no_array_of_texts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"array|NULL"):
        parse_array(text)


@given(st.lists(st.text()))
def test_every_array_that_is_written_is_read_again(elements: list[str]) -> None:
    assert parse_array(written_array(elements)) == elements


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() and is_plain(text)
)
sentences = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda text: text.strip())
ids = st.integers(1, 2**31 - 1)
spans = st.tuples(st.floats(0, 1000), st.floats(1001, 360_000))
tokens = st.builds(
    lambda row_id, name, actor, category, span, views: {
        **{"id": row_id, "token_name": name, "actor_name": actor, "category": category},
        **{"start_time": span[0], "end_time": span[1], "view_count": views},
    },
    *(ids, names, names, st.none() | names, spans, st.integers(0, 10**9)),
)
scripts = st.builds(
    lambda row_id, token, span, script, translation: {
        **{"id": row_id, "token_id": token, "start_time": span[0], "end_time": span[1]},
        **{"script": script, "translation": translation},
    },
    *(ids, ids, spans, sentences, st.none() | sentences),
)
actors = st.builds(
    lambda row_id, aliases: {"id": row_id, "name": f"a{row_id}", "aliases": aliases}, ids, st.lists(names)
)


def catalogues() -> st.SearchStrategy[dict[str, list[dict[str, Any]]]]:
    def rows(one: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
        return st.lists(one, max_size=4, unique_by=lambda row: row["id"])

    return st.fixed_dictionaries({"actors": rows(actors), "tokens": rows(tokens), "scripts": rows(scripts)})


def test_a_carriage_return_in_a_text_ends_no_line() -> None:
    script = {"id": 1, "token_id": 1, "start_time": 0.0, "end_time": 1.0, "script": "a\rb", "translation": None}
    written = "".join(csv_files.write("scripts", [script]))
    assert rows_of(of_csv(written))["scripts"][0]["script"] == "a\rb"


@given(catalogues())
def test_what_is_written_is_read_again_in_either_form(catalogue: dict[str, list[dict[str, Any]]]) -> None:
    first = of_json(catalogue)
    assert first.problems == []
    exported = {
        table: [{name: row[name] for name in COLUMNS[table]} for row in rows] for table, rows in rows_of(first).items()
    }
    again = File(json_files.read("".join(json_files.write(exported))))
    assert (again.problems, rows_of(again)) == ([], rows_of(first))
    for table, rows in exported.items():
        alone = of_csv("".join(csv_files.write(table, rows)))
        assert (alone.problems, rows_of(alone)[table]) == ([], rows_of(first)[table])


def test_an_export_in_either_form_leaves_a_reference_that_came_after_it() -> None:
    absent = [dict.fromkeys(COLUMNS["tokens"]) | TOKEN | {"view_count": 0}]
    before = kept(tokens=[{**TOKEN, "reference_audio_url": "s3://sori/references/1/a"}])
    for text in ("".join(json_files.write({"tokens": absent})), "".join(csv_files.write("tokens", absent))):
        source = json_files.read(text) if text.startswith("{") else csv_files.read(text)
        same = changes(File(source), before)
        assert (written(same), same.same["tokens"]) == ({}, 1)


def test_every_problem_of_json_has_the_line_of_its_field() -> None:
    text = """{
 "actors": [
  {"id": 1, "name": "A"},
  {"id": 2,
   "name": " a "}
 ],
 "tokens": [
  {"id": 0, "token_name": "x", "actor_name": "y",
   "start_time": 3,
   "end_time": 3},
  {"id": "2", "token_name": "x", "start_time": 1, "end_time": 3,
   "colour": "red"},
  17
 ],
 "scripts": []
}"""
    assert said(File(json_files.read(text))) == [
        (5, "actors 2: name: there is another one in line 3"),
        (8, "tokens 0: id: Input should be greater than or equal to 1"),
        (10, "tokens 0: end_time: end_time must be greater than start_time"),
        (11, "tokens 2: actor_name: it is missing"),
        (11, "tokens 2: id: Input should be a valid integer"),
        (12, "tokens 2: colour: there is no such field"),
        (13, "tokens, row 3: a row is an object"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{"tokens": [\n{"id": 1,}]}', 2, "double quotes"),
        ('{"tokens": [\n', 2, "Expecting value"),
        ('{"tokens": [\nNaN]}', 2, "a row is an object"),
        ('{"actors": [\n{"id": 1, "name": "a"},\n{"id": 2, "name": NaN}]}', 3, "actors 2: name:"),
        ('{"actors": [\n{"name": "a",\n"id": -' + "7" * 5000 + "}]}", 3, "row 1: id: Input should be a valid integer"),
        ('{"tokens": [\n{"end_time":\nInfinity}]}', 3, "end_time: it is no finite number"),
        ('{"tokens": [\n{"end_time":\n' + "7" * 400 + "}]}", 3, "end_time: it is no finite number"),
        ("[]", 1, "no object"),
        ('{\n"token": []}', 2, "token: there is no such table"),
        ('{\n"tokens": {}}', 2, "no list"),
        ('{"actors": [\n{"id": 1, "id": 2, "name": "a"}]}', 2, "stands twice"),
        ("[" * 100_000, 1, "nested too deeply"),
        ('{"tokens": ' + "[" * 500 + "]" * 500 + "}", 1, "an object"),
    ],
)
def test_json_that_is_none_of_a_catalogue_is_refused_by_line(text: str, line: int, words: str) -> None:
    told = {sentence: found for found, sentence in said(File(json_files.read(text))) if "missing" not in sentence}
    [(sentence, found)] = told.items()
    assert found == line
    assert words in sentence


def test_views_are_no_more_than_a_browser_can_read() -> None:
    header = ",".join([*TOKEN, "view_count"])
    most = of_csv(f"{header}\n1,a,b,0,1,{2**53 - 1}\n")
    assert most.problems == []
    assert said(of_csv(f"{header}\n1,a,b,0,1,{2**53}\n")) == [(2, "tokens 1: view_count: it is too large")]


def test_every_problem_of_csv_has_the_line_that_its_row_begins_in() -> None:
    text = (
        "id,token_id,start_time,end_time,script\n"
        '1,1,0,1,"two\nlines"\n'
        "1,1,0,1,again\n"
        '2,1,"1\n",1,late\n'
        "3,x,0,1,a\n"
        "4,1,0,1\n"
        "\n"
        '5,1,0,1,"never\nended'
    )
    assert said(of_csv(text)) == [
        (4, "scripts 1: id: there is another one in line 2"),
        (5, "scripts 2: end_time: end_time must be greater than start_time"),
        (7, "scripts 3: token_id: Input should be a valid integer, unable to parse string as an integer"),
        (8, "scripts: 4 fields, and there are 5 columns"),
        (10, "scripts: unexpected end of data"),
    ]


def test_every_address_that_the_catalogue_may_not_have_is_told_by_line() -> None:
    file = of_json(
        {
            "tokens": [
                {**TOKEN, "s3_pitch_url": "catalogue/1.json", "reference_audio_url": "s3://sori/audio/1.wav"},
                {**TOKEN, "id": 2, "s3_textgrid_url": "inbox/2", "s3_bgvoice_url": "https://web.example/2.wav"},
            ]
        }
    )
    assert file.have_addresses
    file.check_addresses(CatalogueAddresses("sori"))
    why = "only files under references/ and CATALOGUE_PREFIX, or https addresses outside of the bucket"
    assert said(file) == [
        (10, f"tokens 1: reference_audio_url: {why}"),
        (18, f"tokens 2: s3_textgrid_url: {why}"),
    ]
    assert not of_json({"tokens": [TOKEN], "actors": [ACTOR]}).have_addresses


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "columns are those of no table"),
        ("id,colour", "columns are those of no table: id, colour"),
        ("id,name,aliases,colour", "actors: there is no column colour"),
        ("id,token_id,script", "scripts: the column start_time, end_time is missing"),
        ("id,id,name", "a column stands twice"),
    ],
)
def test_a_header_tells_the_table_or_is_refused(header: str, words: str) -> None:
    [(line, sentence)] = said(of_csv(f"{header}\n1,2,3\n"))
    assert line == 1
    assert words in sentence


def test_rows_that_are_there_already_change_nothing_and_others_are_counted() -> None:
    catalogue = {"actors": [ACTOR], "tokens": [TOKEN], "scripts": [SCRIPT]}
    same = changes(of_json(catalogue), kept(**catalogue))
    assert (written(same), same.touched) == ({}, set())
    assert same.same == {"actors": 1, "tokens": 1, "scripts": 1}
    new = changes(of_json(catalogue), kept())
    assert written(new) == {"actors": [(1, 1)], "tokens": [(1, 1)], "scripts": [(1, 1)]}
    renamed = changes(of_json({"tokens": [{**TOKEN, "token_name": "명량"}]}), kept(**catalogue))
    assert written(renamed) == {"tokens": [(1, 4)]}
    assert renamed.changed["tokens"][0]["names"] == ["명량", "최민식"]


def test_a_token_whose_scripts_change_has_changed_itself_but_once() -> None:
    other = {**TOKEN, "id": 2}
    before = kept(tokens=[TOKEN, other], scripts=[SCRIPT])
    moved = changes(of_json({"scripts": [{**SCRIPT, "token_id": 2}]}), before)
    assert (written(moved), moved.touched) == ({"scripts": [(1, 4)]}, {1, 2})
    both = changes(of_json({"tokens": [{**TOKEN, "category": "x"}], "scripts": [{**SCRIPT, "id": 2}]}), before)
    assert (written(both), both.touched) == ({"tokens": [(1, 4)], "scripts": [(2, 1)]}, set())


@pytest.mark.parametrize(
    ("field", "before", "told", "after"),
    [
        ("view_count", 17, {}, 17),
        ("view_count", 17, {"view_count": 2}, 2),
        ("reference_audio_url", "s3://sori/references/1/a", {}, "s3://sori/references/1/a"),
        ("reference_audio_url", "s3://sori/references/1/a", {"reference_audio_url": None}, None),
        ("category", "사극", {}, None),
    ],
)
def test_views_and_reference_stay_when_the_file_does_not_speak_of_them(
    field: str, before: object, told: dict[str, object], after: object
) -> None:
    file = of_json({"tokens": [{**TOKEN, **told, "token_name": "new"}]})
    [token] = changes(file, kept(tokens=[{**TOKEN, field: before}])).changed["tokens"]
    assert token[field] == after


def test_what_is_in_the_way_in_the_catalogue_is_told_by_line() -> None:
    many = [{**SCRIPT, "id": number, "token_id": 1} for number in range(1, MAX_SCRIPTS + 1)]
    file = of_json(
        {
            "actors": [{**ACTOR, "id": 5, "aliases": []}],
            "tokens": [{**TOKEN, "id": 9, "end_time": 0}],
            "scripts": [
                {**SCRIPT, "id": MAX_SCRIPTS, "script": "no more than before"},
                {**SCRIPT, "id": 500},
                {**SCRIPT, "id": 501, "token_id": 8},
                {**SCRIPT, "id": 502, "token_id": 9},
            ],
        }
    )
    changes(file, kept(actors=[ACTOR], tokens=[TOKEN], scripts=many))
    assert [sentence for _, sentence in said(file)] == [
        "actors 5: name: actor 1 of the catalogue is called so",
        "tokens 9: end_time: end_time must be greater than start_time",
        "scripts 500: token_id: token 1 would have more than 100 scripts",
        "scripts 501: token_id: there is no token 8, neither here nor in the catalogue",
    ]
    assert sorted({line for line, _ in said(file)}) == [5, 15, 28, 35]


def test_two_actors_may_take_each_others_names() -> None:
    other = {"id": 2, "name": "B", "aliases": []}
    file = of_json({"actors": [{**ACTOR, "name": "b"}, {**other, "name": "최민식"}]})
    assert written(changes(file, kept(actors=[ACTOR, other]))) == {"actors": [(1, 4), (2, 4)]}
    assert file.problems == []


@pytest.fixture
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no .env."""
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command that must fail; gives its exit status and what it said."""
    monkeypatch.setattr(sys, "argv", ["sorictl", "catalogue", *arguments])
    monkeypatch.setattr(logging, "disable", lambda: None)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert "hunter2" not in told.err
    return int(exited.value.code or 0), told.err


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (None, 1, "cannot be read: No such file or directory."),
        (b'{"tokens": []}\n', 2, "setting MONGODB_URL: Field required"),
        (b"id,name\n\n1,\xff\n", 1, "catalogue:3: this is no UTF-8 text; nothing was imported."),
        (b"id,name\n1,a\n", 2, "setting MONGODB_URL: Field required"),
    ],
)
def test_a_file_or_setting_that_does_not_work_is_told_in_a_sentence(
    content: bytes | None,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MONGODB_URL", raising=False)
    file = Path("catalogue")
    if content is not None:
        file.write_bytes(content)
    found, err = run(monkeypatch, capsys, "import", str(file))
    assert (found, err.count("\n")) == (status, 1)
    assert words in err


def test_of_many_problems_the_first_are_shown_and_the_rest_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "actors.csv"
    file.write_text("id,name\n" + "".join(f"0,\x1b{n}\n" for n in range(40)))
    status, err = run(monkeypatch, capsys, "import", str(file))
    lines = err.splitlines()
    assert (status, len(lines)) == (1, 21)
    assert [line.removeprefix(f"{file}:").split(":")[0] for line in lines[:20:2]] == [str(n) for n in range(2, 12)]
    assert lines[20] == "sorictl: nothing was imported, because of these and 60 more."
    assert "\x1b" not in err


def test_a_database_that_is_away_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://sori:hunter2@127.0.0.1:1/sori?serverSelectionTimeoutMS=100")
    monkeypatch.setattr("sorictl.mongodb.SELECT_MS", 100)
    status, err = run(monkeypatch, capsys, "export", str(tmp_path / "out.json"))
    assert (status, err) == (1, "sorictl: MongoDB at 127.0.0.1:1 cannot be reached.\n")
    assert list(tmp_path.iterdir()) == []
