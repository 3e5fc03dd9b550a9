"""The tables of docs/protocol.md that follow from the code: requests, replies, errors and close codes of nc.v1.

    python -m tools.protocol_tables

writes them anew, each between its two marks; `make docs` does so as well.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import inspect as declared

import service.core.close_codes
from service.core.close_codes import CloseReason
from service.core.frames import REPLIES, REQUESTS, Failure, Failures

PAGE = Path(__file__).parent.parent / "docs" / "protocol.md"

WORDS: dict[type, str] = {
    declared.IntType: "number",
    declared.FloatType: "number",
    declared.BoolType: "true or false",
    declared.NoneType: "null",
    declared.StrType: "text",
    declared.RawType: "any JSON",
    declared.DictType: "object",
    declared.StructType: "object",
}
MEANINGS = {"id": "Comes back in the answer.", "group": "The group.", "token": "The token.", "key": "The key."}


def frames(kinds: dict[str, type[msgspec.Struct]]) -> str:
    """A table of frames: what each is for, and its keys."""
    rows = ["| type | key | holds | meaning |", "|---|---|---|---|"]
    for name, kind in kinds.items():
        rows.append(f"| **`{name}`** | | | {' '.join((kind.__doc__ or '').split())} |")
        rows += [f"| | {key} | {holds} | {meaning} |" for key, holds, meaning in keys(kind)]
    return "\n".join(rows)


def keys(kind: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Each key of a frame: its name, what it holds, and what it means."""
    info = declared.type_info(kind)
    assert isinstance(info, declared.StructType)
    for field in info.fields:
        described = isinstance(field.type, declared.Metadata) and field.type.extra_json_schema
        meaning = described["description"] if described else MEANINGS.get(field.name, "")
        yield f"`{field.encode_name}`", in_words(field.type) + ("" if field.required else ", optional"), meaning


def in_words(kind: declared.Type) -> str:
    """What a key holds."""
    if isinstance(kind, declared.Metadata):
        return in_words(kind.type)
    if isinstance(kind, declared.UnionType):
        return " or ".join(dict.fromkeys(in_words(each) for each in kind.types if in_words(each) != "null"))
    if isinstance(kind, declared.LiteralType):
        return ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, declared.ListType):
        return f"list of {in_words(kind.item_type)}"
    return WORDS[type(kind)]


def requests() -> str:
    return frames(REQUESTS)


def replies() -> str:
    return frames({str(kind.__struct_config__.tag): kind for kind in REPLIES})


def errors() -> str:
    failures = sorted((each for each in vars(Failures).values() if isinstance(each, Failure)), key=lambda f: f.code)
    rows = [f"| {each.code} | {each.reason} | {'yes' if each.temporary else 'no'} |" for each in failures]
    return "\n".join(["| code | reason | temporary |", "|---|---|---|", *rows])


TABLES: dict[str, Callable[[], str]] = {"requests": requests, "replies": replies, "errors": errors}


def with_tables(page: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """The page with every table as the code has it."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: derived by make docs -->\n", f"<!-- end of {name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        page, found = re.subn(pattern, f"{begin}{table()}\n{end}", page, flags=re.DOTALL)
        if not found:
            raise ValueError(f"the page has no place for the table of {name}")
    return page


def close_reasons() -> list[CloseReason]:
    """Every reason for which the service closes a connection."""
    return sorted(reason for reason in vars(service.core.close_codes).values() if isinstance(reason, CloseReason))


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.relative_to(Path.cwd())}\n")
