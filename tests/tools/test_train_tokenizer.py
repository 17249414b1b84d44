from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tools.train_tokenizer import collect_lines, extract_prose, list_library_files, train_bpe

LINES = ["the car turns left", "the car turns right", "a pedestrian waits", "über 1024 cars"] * 5


def test_the_same_lines_give_the_same_tokenizer() -> None:
    assert train_bpe(LINES, 300).to_str() == train_bpe(list(LINES), 300).to_str()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_tiny_tokenizer_round_trips_any_text(text: str) -> None:
    tokenizer = train_bpe(LINES, 280)
    assert tokenizer.get_vocab_size() <= 280
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_digit_is_a_token() -> None:
    assert train_bpe(["1024 1024 1024 1024"] * 9, 300).encode("1024").tokens == ["1", "0", "2", "4"]


def test_prose_is_docstrings_and_comments_without_code() -> None:
    source = (
        '"""A module."""\ndef f():\n    """Does it.\n\n    More."""\n    # A reason.\n    return "not me"\n'
    )
    assert list(extract_prose(source)) == ["A module.", "Does it.\n\nMore.", "A reason."]


def test_library_files_are_sorted_and_without_the_excluded_folders(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "a/LICENSE.txt", "test/t.py", "site-packages/p.py", "z.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('"""Here is a line of prose.\n\n>>> 1 + 1\n"""\n')
    names = [path.relative_to(tmp_path).as_posix() for path in list_library_files(tmp_path)]
    assert names == ["a/LICENSE.txt", "a/c.py", "b.py"]
    lines = collect_lines(tmp_path)
    assert lines.count("Here is a line of prose.") == 1
    assert not any(line.startswith(">>>") for line in lines)
