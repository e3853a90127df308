"""What holds for README and every page of docs/: commands compose, names exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest
import quick_conf
from documents import COMMAND, PAGES, ROOT, blocks, commands, keys_of
from test_ladder import LADDER

import conf
from bimangrasp.files.schema import final_fields, reject_fields
from conf import launcher, sweep

GROUPS = "hand|initial|contact|energy|pose|verdict|rounds|curve|reject"
KEYS = keys_of(quick_conf.load())
NO_KEYS = {
    *("hand.xacro", "energy.fused", "validation.on_device"),  # a file and rooms
    *(
        "hand.candidates.palmar",
        "hand.joint_mean.thumb_0",
        "hand.couplings.FF.coupled",
    ),  # entries whose names a hand's links and joints give
}
FEWEST_COMMANDS = 30

pages = pytest.mark.parametrize("page", PAGES)


@pytest.mark.slow
@pages
def test_every_command_composes(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "my_hand.yaml").write_text((ROOT / "conf" / "hand" / "shadow.yaml").read_text())
    for words in commands(PAGES[page]):
        folder = words.pop(words.index("--config-dir") + 1) if "--config-dir" in words else None
        if "-m" in words:
            _, overrides = launcher.split([word for word in words if word != "-m"], folder)
            assert len(sweep.jobs(overrides, folder)) > 1
        else:
            conf.load([word for word in words if word != "--config-dir"], folder)


def test_there_are_commands():
    assert sum(len(commands(text)) for text in PAGES.values()) > FEWEST_COMMANDS


@pages
def test_no_command_is_in_a_block_that_no_test_reads(page):
    fenced = "".join(re.findall(r"```(?!bash).*?\n(.*?)```", PAGES[page], re.DOTALL))
    assert COMMAND not in fenced


@pages
def test_every_python_block_compiles(page):
    for block in blocks(PAGES[page], "python"):
        ast.parse(block)


@pages
def test_every_named_key_exists(page):
    assert named_keys(PAGES[page]) <= KEYS | {"experiment"}


def named_keys(text: str) -> set[str]:
    """Returns the keys in a page's commands, in the first column of its tables of keys, and with a dot in its prose."""
    in_commands = {
        word.lstrip("+").partition("=")[0]
        for words in commands(text)
        for word in launcher.split(words)[1]
        if "=" in word
    }
    tables = [table.split("\n\n")[0] for table in text.split("\n| Key |")[1:]]
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()[2:]]
    in_tables = {key for cell in cells for key in re.findall(r"`([a-z_.]+)", cell)}
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    in_prose = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)", text))
    return (in_commands | in_tables | in_prose) - NO_KEYS


@pages
def test_every_extra_that_is_installed_exists(page):
    setup = (ROOT / "setup.py").read_text().split("extras_require={")[1].split("entry_points")[0]
    extras = set(re.findall(r'^ {8}"([a-z]+)":', setup, re.MULTILINE))
    for line in re.findall(r"pip install [^\n`|]*\[[a-z,]+\]", PAGES[page]):
        assert line.startswith("pip install -e '.["), f"{line}: the package is on no index"
        assert set(re.search(r"\[(.*)\]", line)[1].split(",")) <= extras


@pages
def test_every_dataset_that_is_named_exists(page):
    named = set(re.findall(rf"`((?:{GROUPS})/[a-z_0-9]+)`", PAGES[page])) - {"hand/joints"}
    assert named <= {f.name for f in (*final_fields(is_judged=True), *reject_fields(is_judged=True))}


@pages
def test_every_link_leads_to_a_file_and_a_heading(page):
    here = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]*(?:#[^)]*)?)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (here / name).resolve() if name else ROOT / page
        assert path.exists(), f"{page} links {target}"
        assert not anchor or anchor in anchors(path), f"{page} links {target}"


def anchors(path: Path) -> set[str]:
    """Returns the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pages
def test_every_file_of_the_repository_that_is_named_exists(page):
    for name in re.findall(r"`((?:benchmarks|bimangrasp|conf|docs|scale|tests)/[\w./]+)`", PAGES[page]):
        assert (ROOT / name).exists(), f"{page} names {name}"


def test_the_table_of_contents_has_every_page():
    contents = PAGES["docs/README.md"]
    for page in PAGES:
        assert page in ("README.md", "docs/README.md") or f"]({page.removeprefix('docs/')})" in contents, page


def test_every_picture_is_shown_somewhere():
    shown = {target for text in PAGES.values() for target in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)}
    assert {path.name for path in (ROOT / "docs").glob("*.png")} == {target.removeprefix("docs/") for target in shown}


def test_the_architecture_lists_every_room():
    text = PAGES["docs/architecture.md"]
    assert len(text.splitlines()) <= 80
    for package, rooms in LADDER.items():
        rows = text.split(f"| Room of `{package}` |")[1].split("\n\n")[0].splitlines()[2:]
        listed = {name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1])}
        assert listed == set(rooms) - {""}


@pages
def test_sentences_are_short(page):
    lengths = [len(sentence.split()) for sentence in sentences(PAGES[page])]
    assert max(lengths) <= 40 and statistics.median(lengths) < 17


def sentences(text: str) -> list[str]:
    """Returns the sentences of a page's paragraphs and lists; code, tables and headings are left out."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "code", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))
    paragraphs = [" ".join(block.split()) for block in re.split(r"\n\s*\n|\n(?=[*#|]|\d\. )", text)]
    prose = [paragraph for paragraph in paragraphs if paragraph and paragraph[0] not in "#|!"]
    return [sentence for paragraph in prose for sentence in re.split(r"(?<=[.!?])\s+", paragraph)]
