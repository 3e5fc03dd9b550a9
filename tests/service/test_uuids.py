"""Random UUIDs in blocks."""

import os
from uuid import UUID

from service.process.uuids import Uuids


def test_each_is_another_one_of_version_4_as_it_is_written_everywhere() -> None:
    uuids = Uuids()
    drawn = [uuids.draw() for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert all(str(UUID(text)) == text and UUID(text).version == 4 for text in drawn)
    assert {text[19] for text in drawn} == set("89ab")


def test_a_process_and_its_child_never_draw_the_same_ones() -> None:
    uuids = Uuids()
    uuids.draw()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, uuids.draw().encode())
        os._exit(0)
    os.waitpid(child, 0)
    of_child = os.read(reading, 36).decode()
    os.close(reading)
    os.close(writing)
    assert of_child not in [uuids.draw() for _ in range(1000)]
