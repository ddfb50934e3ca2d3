"""What the pages under docs say runs, parses, exists, and agrees with the words that kvopt itself uses."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from kvopt import arguments
from kvopt.errors import BadInput
from kvopt.problem import resolve
from kvopt.wording import GLOSSARY

ROOT = Path(__file__).parents[2]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
OWN = ("my-", "mine", "measured", "runs/", "requests.csv", "sweep.yaml", "FILE")  # files that the reader has, and we do not


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks of a page in some languages; an empty name is a block that states none."""
    return [block for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE) if language in languages]


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every `kvopt ...` in a code block, comments cut off, lines that end in a backslash joined."""
    for name, text in TEXTS.items():
        for block in blocks(text, "", "bash", "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|\||;|\|", line.partition(" #")[0]):
                    if found := re.match(r"\s*(?:srun .*? )?(kvopt(?:\s.*)?)$", part.split(" > ")[0]):
                        yield name, found[1].strip()


COMMANDS = sorted(set(commands()))


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}"[:90] for page, command in COMMANDS])
def test_command_is_one_that_kvopt_understands(page: str, command: str) -> None:
    asked = arguments.parse(shlex.split(command)[1:])
    if asked.verb in arguments.QUESTIONS and not any(word in command for word in OWN):
        assert resolve(arguments.scenario(asked)).scenario


def test_a_command_that_is_wrong_is_refused() -> None:
    assert len(COMMANDS) > 20
    assert {"README.md", "docs/how-to-choose.md"} <= {page for page, _ in COMMANDS}
    with pytest.raises(BadInput, match="--acuracy-floor"):
        arguments.parse(["optimize", "--acuracy-floor", "0.9"])


INLINE = sorted({(name, code) for name, text in TEXTS.items() for code in re.findall(r"`(kvopt [a-z][^`\n]*)`", text)})


@pytest.mark.parametrize(("page", "code"), INLINE, ids=[f"{page}: {code}"[:90] for page, code in INLINE])
def test_command_within_a_sentence_has_its_verb_and_flags(page: str, code: str) -> None:
    words = shlex.split(code)[1:]
    verb = next(iter(words))
    assert verb in arguments.VERBS
    with_help = {option for action in arguments.parser()._subparsers._group_actions[0].choices[verb]._actions for option in action.option_strings}  # type: ignore[union-attr, index, call-overload]
    assert [word for word in words if word.startswith("--") and word not in with_help] == []


MARKED = [
    (name, block)
    for name, text in TEXTS.items()
    for block in re.findall(r"<!-- tested -->\n```python\n(.*?)```", text, re.DOTALL)
    if name != "README.md"
]


@pytest.mark.parametrize(("page", "block"), MARKED, ids=[page for page, _ in MARKED])
def test_python_of_a_page_runs(page: str, block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", [page for page in sorted(TEXTS) if page.startswith("docs/")])
def test_what_a_page_names_exists(page: str) -> None:
    for path in re.findall(r"`((?:kvopt|objectives|studies|tests|docs)/[\w./-]+\.(?:py|yaml|csv|md))`", TEXTS[page]):
        assert (ROOT / path).exists(), path
    for dotted in re.findall(r"`((?:kvopt|objectives)(?:\.\w+)+)(?:\([^`]*\))?`", TEXTS[page]):
        assert reachable(dotted), dotted


def reachable(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name within one."""
    module, _, name = dotted.rpartition(".")
    try:
        import_module(dotted)
    except ModuleNotFoundError:
        return bool(module) and hasattr(import_module(module), name)
    return True


def test_index_names_every_page_and_tutorial() -> None:
    index = TEXTS["docs/README.md"]
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.py")]:
        name = path.relative_to(ROOT / "docs").as_posix()
        assert name == "README.md" or f"({name})" in index, name


def test_glossary_is_that_of_the_reports() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", TEXTS["docs/README.md"].partition("## Glossary")[2], re.MULTILINE))
    assert {word: rows.get(word) for word in GLOSSARY} == GLOSSARY
    words = [word.lower() for word in re.findall(r"^\| ([^|]+?) \|", TEXTS["docs/README.md"].partition("## Glossary")[2], re.MULTILINE)]
    said = [word for word in words if word not in ("word", "---")]
    assert len(said) == len(set(said))  # each once


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_nothing_is_left_to_be_filled_in(page: str) -> None:
    assert not re.findall(r"@[A-Z_]{3,}@|\bTODO\b|TO BE RUN", TEXTS[page])
