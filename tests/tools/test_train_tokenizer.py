from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tools.train_tokenizer import corpus, library_files, prose_of_source, train

LINES = ["the car turns left", "the car turns right", "a pedestrian waits", "über 1024 cars"] * 5


def test_the_same_lines_give_the_same_file() -> None:
    assert train(LINES, 300).to_str() == train(list(LINES), 300).to_str()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_even_a_tiny_tokenizer_round_trips(text: str) -> None:
    tokenizer = train(LINES, 280)
    assert tokenizer.get_vocab_size() <= 280
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_digits_stand_alone() -> None:
    assert train(["1024 1024 1024 1024"] * 9, 300).encode("1024").tokens == ["1", "0", "2", "4"]


def test_prose_is_docstrings_and_comments_and_no_code() -> None:
    source = '"""Of the module."""\ndef f():\n    """Of f.\n\n    More."""\n    # Why.\n    return "not me"\n'
    assert list(prose_of_source(source)) == ["Of the module.", "Of f.\n\nMore.", "Why."]


def test_files_come_sorted_without_the_skipped_folders(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "a/LICENSE.txt", "test/t.py", "site-packages/p.py", "z.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('"""Here is a line of prose.\n\n>>> 1 + 1\n"""\n')
    names = [path.relative_to(tmp_path).as_posix() for path in library_files(tmp_path)]
    assert names == ["a/LICENSE.txt", "a/c.py", "b.py"]
    lines = corpus(tmp_path)
    assert lines.count("Here is a line of prose.") == 1
    assert not any(line.startswith(">>>") for line in lines)
