"""Where everything stands in a YAML text, and which texts are no document of ours."""

import sys
from textwrap import dedent

import pytest

from generator.config.document import ListNode, MappingNode, Node, Origin, Scalar, is_nothing, parse
from tests.generator.front_door import process


def tree(text: str, source: str = "deploy.yaml") -> MappingNode:
    root, faults = parse(text, source)
    assert isinstance(root, MappingNode)
    assert faults == []
    return root


def complaints(text: str, source: str = "deploy.yaml") -> list[str]:
    return [str(fault) for fault in parse(text, source)[1]]


def place(node: Node) -> tuple[int, int]:
    return node.origin.line, node.origin.column


def test_lines_and_columns_count_from_one() -> None:
    root = tree("port: 9000\n")
    assert root.keys["port"] == Origin("deploy.yaml", 1, 1)
    assert root.values["port"].origin == Origin("deploy.yaml", 1, 7)


def test_columns_count_characters_not_bytes() -> None:
    assert place(tree("{größe: 1, 𝛑: x}\n").values["𝛑"]) == (1, 15)


def test_windows_line_ends_leave_lines_and_columns_alone() -> None:
    root = tree("# Müller\r\nport: 9000\r\nworkers: 1\r\n")
    assert root.values["workers"] == Scalar("1", False, Origin("deploy.yaml", 3, 10))


def test_values_inside_braces_and_brackets_know_their_places() -> None:
    ping = tree("ping: {interval: 20,\n       timeout: [1, {a: 2}]}\n").values["ping"]
    assert isinstance(ping, MappingNode)
    timeout = ping.values["timeout"]
    assert isinstance(timeout, ListNode)
    inner = timeout.items[1]
    assert isinstance(inner, MappingNode)
    assert [place(ping), place(timeout), place(inner), place(inner.values["a"])] == [(1, 7), (2, 17), (2, 21), (2, 25)]


def test_a_block_stands_where_its_first_entry_does() -> None:
    assert place(tree("ping:\n\n  # often enough\n  interval: 20\n").values["ping"]) == (4, 3)


def test_a_value_that_was_left_out_stands_behind_its_colon() -> None:
    assert place(tree("port:\nworkers: 1\n").values["port"]) == (1, 6)


def test_a_folded_text_stands_where_its_sign_does() -> None:
    assert tree("welcome: >\n  Hello,\n  world\n").values["welcome"] == Scalar(
        "Hello, world\n", True, Origin("deploy.yaml", 1, 10)
    )


@pytest.mark.parametrize("text", ["a:", "a: ~", "a: null", "a: Null", "a: # 5"])
def test_nothing_is_a_value_left_out_or_null(text: str) -> None:
    assert is_nothing(tree(text).values["a"])


@pytest.mark.parametrize("text", ["a: ''", "a: 'null'", "a: 0", "a: nULL", "a: []", "a: {}"])
def test_something_is_all_else(text: str) -> None:
    assert not is_nothing(tree(text).values["a"])


def test_a_key_is_a_word_whatever_it_looks_like() -> None:
    assert list(tree("true: 1\n60: 2\n~: 3\n'no': 4\n").keys) == ["true", "60", "~", "no"]


def test_a_source_of_the_command_line_has_no_lines() -> None:
    assert tree("{interval: 20}", "--set ping").values["interval"].origin == Origin("--set ping")
    assert complaints("{a: 1, a: 2}", "--set ping") == ["--set ping: a: is given twice; keep one"]
    assert complaints("[1", "--set port") == [
        "--set port: did not find expected ',' or ']' at '[1'; close the bracket, or put a comma between the values"
    ]
    assert complaints("a:\n\tb: 1", "--set ping") == ["--set ping: YAML does not indent with tabs; use spaces"]


def test_an_empty_text_has_neither_tree_nor_faults() -> None:
    assert parse("", "deploy.yaml") == (None, [])


def test_a_document_may_be_marked_and_ended() -> None:
    assert list(tree("---\nport: 9000\n...\n").keys) == ["port"]


def test_a_tab_between_a_key_and_its_value_is_a_blank() -> None:
    assert tree("port:\t9000\t# high\n").values["port"] == Scalar("9000", False, Origin("deploy.yaml", 1, 7))


# libyaml takes them for line breaks, and what an editor shows as the rest of a comment for settings.
@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\r"])
def test_a_line_break_that_is_none_in_an_editor_is_refused(character: str) -> None:
    assert complaints(f"port: 9000\nhost: ::1 # {character}workers: 5\n") == [
        f"deploy.yaml:2:13: holds the character {character!a}; remove it"
    ]


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\ufeff", "\ufffe", "\ud800"])
def test_a_character_that_nobody_sees_is_refused(character: str) -> None:
    assert complaints(f"port: 9000\nwelcome: Grüße{character}\n") == [
        f"deploy.yaml:2:15: holds the character {character!a}; remove it"
    ]


@pytest.mark.parametrize("character", ["\xa0", "é", "\u200d", "中", "🎉", "\U0010fffd"])
def test_every_other_character_is_welcome(character: str) -> None:
    assert tree(f"welcome: a{character}b\n").values["welcome"] == Scalar(
        f"a{character}b", False, Origin("deploy.yaml", 1, 10)
    )


def test_an_alias_is_refused_where_it_stands_and_not_expanded() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    root, faults = parse("\n".join(lines), "deploy.yaml")
    assert isinstance(root, MappingNode)
    assert len(faults) == 2 * 29
    assert str(faults[-1]) == "deploy.yaml:30:6: a29[1]: is an alias of another value; write it out"


@pytest.mark.parametrize("opener", ["[", "{a: ", "- ", "? ", "[{a: ", "[? "])
def test_no_depth_of_nesting_ends_the_interpreter(opener: str) -> None:
    """libyaml's stack ends without an exception, so the proof is a process that lives on."""
    program = dedent(f"""
        from generator.config.load import ConfigError, load_text
        for depth in (400, 2_000, 4_900, 9_900, 30_000, 100_000):
            try:
                load_text({opener!r} * depth + "x", "deploy.yaml")
            except ConfigError as error:
                assert len(str(error)) < 300, error
                print("refused")
    """)
    assert process([sys.executable, "-c", program]) == (0, "refused\n" * 6, "")


def test_nesting_by_indentation_ends_no_interpreter_either() -> None:
    program = dedent("""
        from generator.config.load import ConfigError, load_text
        try:
            load_text("".join(f"{' ' * n}a:\\n" for n in range(1400)), "deploy.yaml")
        except ConfigError as error:
            print(error)
    """)
    assert process([sys.executable, "-c", program]) == (
        0,
        "deploy.yaml: has too many entries, or nests them too deeply; write it as the sample does\n",
        "",
    )
