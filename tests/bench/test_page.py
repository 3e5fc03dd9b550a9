"""The tables as they are printed and written."""

import pytest

from bench.page import bullets, cells, part_of, replaced, table


def test_a_table_can_be_read_as_it_is() -> None:
    assert table(("server", "ratio"), [("fast shell", "3.10"), ("nchan", "12.00")]) == (
        "| server     | ratio |\n"
        "| ---------- | ----: |\n"
        "| fast shell |  3.10 |\n"
        "| nchan      | 12.00 |"
    )  # fmt: skip


def test_long_remarks_are_wrapped() -> None:
    first, second = bullets(["word " * 30]).splitlines()
    assert first.startswith("- word")
    assert second.startswith("  word")


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = "before\n<!-- servers: begin -->\nold\n<!-- servers: end -->\nafter\n"
    assert replaced(page, "servers", r"new \1") == (
        "before\n<!-- servers: begin -->\nnew \\1\n<!-- servers: end -->\nafter\n"
    )


def test_a_page_without_the_markers_is_not_written() -> None:
    with pytest.raises(ValueError, match="<!-- servers: begin -->"):
        replaced("nothing", "servers", "new")


def test_the_cells_of_a_table_are_read_again() -> None:
    header, rows = ("server", "ratio", "-"), [("fast shell", "3.10", ""), ("nchan", "-", "12.00")]
    assert cells(f"Before.\n\n{table(header, rows)}\n\n- after") == [[*header], *map(list, rows)]
    assert cells("nothing") == []


def test_a_part_is_what_is_between_its_markers() -> None:
    page = "<!-- a: begin -->\none\n\ntwo\n<!-- a: end -->\n<!-- b: begin -->\n<!-- b: end -->\n"
    assert (part_of(page, "a"), part_of(page, "b")) == ("one\n\ntwo", "")
    with pytest.raises(ValueError, match="<!-- c: begin -->"):
        part_of(page, "c")
