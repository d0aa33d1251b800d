import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez import config
from vez.errors import ConfigError
from vez.toml_edit import add_dataset, add_exclusion, add_waiver

PROJECT = '# top\n[project]\nbase = "tiny"\ntrigger = "zolka"\nnoun = "hat"\ndescribes = "a hat"\n\n'
STUDY = """
# The study, and what it is for.
[study.s]
steps = 4  # few

[study.s.variant]
a = { dataset = "v2" }
"""
V1 = '# Version 1.\n[dataset.v1]\nimages = "images/v1" # found\n\n'
# every way of writing a dataset, and whether the edit only inserts
FORMS = {
    "none yet": '# Version 2.\n[dataset.v2]\nimages = "images/v2"  # good ones\n# the last line\n',
    "a table below": '[dataset.v2]\nimages = "i"\n\n[dataset.v2.checks]\nblurred = 0.4 # soft\n',
    "one already": '[dataset.v2]\nimages = "i"\n\n[[dataset.v2.waive]]\ncheck = "dark"\nreason = "night" # so\n',
    "inline": '[dataset.v2]\nwaive = [{ check = "dark", reason = "night" }] # one\nimages = "i"\n',
    "inline in lines": '[dataset.v2]\nimages = "i"\nwaive = [ # all\n  { check = "dark", reason = "n" }, # one\n]\n',
    "inline, empty": '[dataset.v2]\nimages = "i"\nwaive = []\n',
    "quoted": "[ dataset . 'v2' ]\nimages = \"i\"\n",
    "dotted": '[dataset]\nv2.images = "i"\n',
    "long string": '[dataset.v2]\nimages = "i"\ncaptioner = """\n[dataset.v2]\n# not a table\n[x]\n"""\n',
}
REASON = 'it is "night"\\ there\n\x1b[2J, always'


def write(folder: Path, text: str, *, newline: str = "\n", head: bytes = b"") -> Path:
    path = folder / "vez.toml"
    path.write_bytes(head + text.replace("\n", newline).encode())
    return path


def inserted(before: bytes, after: bytes) -> bytes:
    """What was put in at one place; fails where anything else changed."""
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    for start in range(at, -1, -1):
        size = len(after) - len(before)
        if after[:start] + after[start + size :] == before:
            return after[start : start + size]
    raise AssertionError(f"more than an insertion:\n{after.decode()}")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", [False, True])
def test_a_waiver_goes_in_and_every_other_byte_stays(tmp_path: Path, form: str, newline: str, last: bool) -> None:
    text = PROJECT + FORMS[form] + (STUDY if not last else "")
    path = write(tmp_path, text, newline=newline)
    before, old = path.read_bytes(), config.load(path)
    add_waiver(path, "v2", check="blurred", file="b 1.jpg", reason=REASON)
    new = config.load(path)
    *others, waiver = new.dataset["v2"].waive
    assert tuple(others) == old.dataset["v2"].waive
    assert (waiver.check, waiver.file, waiver.reason) == ("blurred", "b 1.jpg", REASON)
    assert b"blurred" in inserted(before, path.read_bytes())
    assert [p.name for p in tmp_path.iterdir()] == ["vez.toml"]


def test_it_stands_with_its_dataset_and_comments_with_theirs(tmp_path: Path) -> None:
    path = write(tmp_path, PROJECT + V1 + FORMS["none yet"] + STUDY)
    add_waiver(path, "v1", check="few-sources", reason="a test")
    add_exclusion(path, "v2", file="x.jpg", reason="shows a child")
    text = path.read_text(encoding="utf-8")
    assert (
        text
        == PROJECT
        + '# Version 1.\n[dataset.v1]\nimages = "images/v1" # found\n\n[[dataset.v1.waive]]\ncheck = "few-sources"\n'
        + 'file = "*"\nreason = "a test"\n\n'
        + FORMS["none yet"]
        + '\n[[dataset.v2.exclude]]\nfile = "x.jpg"\nreason = "shows a child"\n'
        + STUDY
    )


@pytest.mark.parametrize("text", ['dataset = { v2 = { images = "i" } }\n', '[dataset]\nv2 = { images = "i" }\n'])
def test_a_dataset_in_one_line_is_extended_in_it(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text + PROJECT)
    add_waiver(path, "v2", check="dark", reason="night")
    assert config.load(path).dataset["v2"].waive[0].check == "dark"
    assert PROJECT in path.read_text(encoding="utf-8")


def test_a_second_one_follows_the_first_and_the_same_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, PROJECT + FORMS["one already"] + STUDY)
    add_waiver(path, "v2", check="dark", file="a.jpg", reason="cellar")
    add_exclusion(path, "v2", file="a.jpg", reason="twice")
    text = path.read_bytes()
    assert [w.reason for w in config.load(path).dataset["v2"].waive] == ["night", "cellar"]
    with pytest.raises(ConfigError, match=r"already under waive, because 'night'"):
        add_waiver(path, "v2", check="dark", reason="again")
    with pytest.raises(ConfigError, match=r"already under exclude, because 'twice'"):
        add_exclusion(path, "v2", file="a.jpg", reason="again")
    assert path.read_bytes() == text


def test_what_cannot_be_meant_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, PROJECT + FORMS["none yet"])
    text = path.read_bytes()
    for arguments, said in (
        ({"dataset": "v3", "check": "dark"}, r"no \[dataset.v3\] in .*vez.toml; known are: v2"),
        ({"dataset": "v2", "check": "blured"}, r"no check 'blured'; did you mean 'blurred'\?"),
        ({"dataset": "v2", "check": "dark", "reason": " "}, r"vez.toml: .*reason"),
        ({"dataset": "v2", "check": "dark", "file": "\udcff.jpg"}, r"rename the file"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            add_waiver(path, **{"reason": "r", **arguments})
        assert ".try" not in str(caught.value)
    assert path.read_bytes() == text and [p.name for p in tmp_path.iterdir()] == ["vez.toml"]


def test_a_file_that_is_broken_already_is_not_touched(tmp_path: Path) -> None:
    path = write(tmp_path, PROJECT + '[dataset.v2]\nimages = "i"\nimage = "j"\n')
    with pytest.raises(ConfigError, match="image"):
        add_waiver(path, "v2", check="dark", reason="r")
    with pytest.raises(ConfigError, match="there is no"):
        add_exclusion(tmp_path / "none.toml", "v2", file="a", reason="r")


def test_byte_order_mark_mode_and_link_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = write(tmp_path / "real", PROJECT + FORMS["none yet"], head=b"\xef\xbb\xbf")
    real.chmod(0o640)
    link = tmp_path / "vez.toml"
    link.symlink_to(real)
    before = real.read_bytes()
    add_waiver(link, "v2", check="dark", reason="r")
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert inserted(before, real.read_bytes())


def test_datasets_are_added_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path, PROJECT.rstrip("\n"), newline="\r\n")
    before = path.read_bytes()
    table = (
        '# imported\n[dataset.found]\nimages = "images/found"\n\n[dataset.found-class]\nimages = "c"\nrole = "class"'
    )
    add_dataset(path, table)
    added = inserted(before, path.read_bytes())
    assert added == b"\r\n\r\n" + table.replace("\n", "\r\n").encode() + b"\r\n"
    assert config.load(path).dataset["found-class"].role == "class"


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[dataset.v2]\nimages = "i"', r"has a \[dataset.v2\] already"),
        ('[project]\nbase = "x"', r"only \[dataset.<name>\] tables"),
        ("dataset = 3", r"only \[dataset.<name>\] tables"),
        ("", r"not nothing"),
        ("[dataset.v3", r"not valid TOML"),
        ("[dataset.v3]\n", r"lacks the key .images."),
        ('[dataset."a/b"]\nimages = "i"', r"cannot be a folder's"),
    ],
)
def test_tables_that_cannot_be_meant(tmp_path: Path, tables: str, said: str) -> None:
    path = write(tmp_path, PROJECT + FORMS["none yet"])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=said):
        add_dataset(path, tables)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["vez.toml"]


def test_a_dataset_whose_name_needs_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, PROJECT + '[dataset."v2.1"]\nimages = "i"\n' + V1)
    add_exclusion(path, "v2.1", file="a.jpg", reason="r")
    assert '[[dataset."v2.1".exclude]]' in path.read_text(encoding="utf-8")


comments = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20).map(
    lambda text: f"# {text}\n"
)
fillers = st.lists(st.one_of(comments, st.just("\n")), max_size=4).map("".join)
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(lambda text: text.strip())


@given(
    form=st.sampled_from(sorted(FORMS)),
    around=st.tuples(fillers, fillers, fillers, fillers),
    order=st.permutations(["v1", "v2", "study", "project"]),
    reason=texts,
    file=texts,
)
def test_comments_and_other_bytes_are_kept(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    around: tuple[str, ...],
    order: list[str],
    reason: str,
    file: str,
) -> None:
    pieces = {"v1": V1, "v2": FORMS[form], "study": STUDY, "project": PROJECT}
    if form == "dotted":  # [dataset] may not follow [dataset.v1]
        pieces["v1"] = ""
    text = "".join(filler + pieces[name] for filler, name in zip(around, order, strict=True))
    path = write(tmp_path_factory.mktemp("toml"), text)
    before, wanted = path.read_bytes(), tomllib.loads(text)
    add_waiver(path, "v2", check="blurred", file=file, reason=reason)
    inserted(before, path.read_bytes())
    entry = {"check": "blurred", "file": file, "reason": reason}
    wanted["dataset"]["v2"].setdefault("waive", []).append(entry)
    assert tomllib.loads(path.read_text(encoding="utf-8")) == wanted
