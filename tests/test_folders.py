"""The folders: tests/ mirrors src/torchshrink/, so that everybody knows where the test of a thing is."""

from pathlib import Path

import torchshrink

TESTS = Path(__file__).parent
SOURCES = Path(torchshrink.__file__).parent


def folders(root, pattern):
    return {path.parent.relative_to(root) for path in root.rglob(pattern)}


def test_each_folder_of_tests_is_a_room_of_the_library():
    assert folders(TESTS, "test_*.py") - folders(SOURCES, "*.py") == set()


def test_each_room_of_the_library_has_tests():
    assert folders(SOURCES, "*.py") - folders(TESTS, "test_*.py") == set()


def test_what_the_glossary_points_at_is_there():
    """A word of the code is explained where it stands."""
    glossary = (TESTS.parent / "docs" / "glossary.md").read_text(encoding="utf-8")
    table = glossary[glossary.index("| word | meaning | where |") :].splitlines()[2:]
    places = [place.strip(" `") for row in table for place in row.rsplit("|", 2)[1].split(",")]
    assert len(places) > 15
    assert [place for place in places if not (SOURCES / place).exists()] == []
