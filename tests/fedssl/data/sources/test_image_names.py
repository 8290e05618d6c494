"""Tests of fedssl.data.sources.image_names: names that other tools and machines wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedssl.data.sources.image_names import AmbiguousName, Names, components, image_files, present, shown

FILES = ("images/a.png", "images/Bus 1.JPG", "more/c.png", "other/c.png", "images/stra\u00dfe.png", "x/y/d.png")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images/a.png", "images/a.png"),
        ("a.png", "images/a.png"),
        ("./images/a.png", "images/a.png"),
        (".\\images\\a.png", "images/a.png"),
        ("images//a.png ", "images/a.png"),
        ("../set/images/a.png", "images/a.png"),
        ("/content/drive/set/images/a.png", "images/a.png"),
        ("C:\\Users\\me\\images\\a.png", "images/a.png"),
        ("file:///home/me/images/a.png", "images/a.png"),
        ("IMAGES/A.PNG", "images/a.png"),
        ("images/bus%201.jpg", "images/Bus 1.JPG"),
        ("stra%C3%9Fe.png", "images/stra\u00dfe.png"),
        ("more/c.png", "more/c.png"),
        ("y/d.png", "x/y/d.png"),
        ("z/d.png", None),
        ("pictures/a.png", None),
        ("mages/a.png", None),
        ("b.png", None),
        ("", None),
    ],
)
def test_names_of_other_machines(name: str, found: str | None) -> None:
    assert Names(FILES).find(name) == found


def test_a_name_in_several_folders_is_ambiguous_unless_a_test_decides() -> None:
    names = Names(FILES)
    with pytest.raises(AmbiguousName, match=r"^c\.png may be more/c\.png or other/c\.png$"):
        names.find("c.png")
    assert names.find("c.png", lambda path: path.startswith("other")) == "other/c.png"
    assert names.find("c.png", lambda _: True, lambda path: path.startswith("more")) == "more/c.png"
    with pytest.raises(AmbiguousName):
        names.find("c.png", lambda _: True, lambda path: path.startswith("none"))
    with pytest.raises(AmbiguousName, match=r"a\.png or A\.png|A\.png or a\.png"):
        Names(["a.png", "A.png"]).find("a.PNG")
    assert Names(["a.png", "A.png"]).find("A.png") == "A.png"


def test_the_longest_common_end_wins() -> None:
    names = Names(["a.png", "images/a.png", "set/images/a.png"])
    assert names.find("/x/set/images/a.png") == "set/images/a.png"
    assert names.find("/x/images/a.png") == "images/a.png"
    assert names.find("/x/a.png") == "a.png"


def test_folders_do_not_count_where_it_is_asked_for_and_the_file_is_clear() -> None:
    names = Names(FILES, by_file=True)
    assert names.find("elsewhere/a.png") == "images/a.png"
    with pytest.raises(AmbiguousName):
        names.find("elsewhere/c.png")


def test_letters_may_be_composed_in_two_ways() -> None:
    assert Names(["bu\u0308.png"]).find("b\u00fc.png") == "bu\u0308.png"
    assert components("b\u00fc/a") == components("bu\u0308/a")


def test_images_are_listed_through_links_once_and_without_hidden_files(tmp_path: Path) -> None:
    images = ["b.PNG", "a/c.jpeg", "f.webp"]
    others = ["a/d.txt", ".hidden.png", ".git/e.png", "__MACOSX/a/._c.jpeg"]
    outputs = ["runs/1/environment.json", "runs/1/figures/split.png", "who/split.npz", "who/split.png"]
    for name in (*images, *others, *outputs):
        place = tmp_path / "set" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "g.jpg").write_bytes(b"")
    os.symlink(tmp_path / "far", tmp_path / "set" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "set" / "a" / "loop")
    assert image_files(tmp_path / "set") == ["a/c.jpeg", "b.PNG", "f.webp", "linked/g.jpg"]


def test_a_file_is_present_in_another_letter_case_if_it_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "IMG.TXT").write_text("")
    assert present(tmp_path / "img.txt").name == "IMG.TXT"
    assert present(tmp_path / "other.txt").name == "other.txt"
    assert present(tmp_path / "no" / "img.txt") == tmp_path / "no" / "img.txt"
    (tmp_path / "Img.txt").write_text("")
    os.utime(tmp_path, ns=(1, 1))
    assert present(tmp_path / "img.txt").name == "img.txt"


def test_names_that_are_no_text_are_shown_all_the_same() -> None:
    assert shown([os.fsdecode(b"b\xfcs.png")]) == "b\\udcfcs.png"
    assert shown(["a", "b", "c"]) == "a, b, ..."
