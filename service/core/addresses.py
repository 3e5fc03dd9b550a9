"""The addresses under which clients are reached."""

from typing import Annotated, NewType

from msgspec import Meta

Address = NewType("Address", str)
"""The UUID under which a client is known; the protocol takes any text that is not too long."""

# A UUID has 36 characters, names of one's own are longer. The bound keeps what a client can store in the hub small.
MAX_ADDRESS_LENGTH = 128

CheckedAddress = Annotated[Address, Meta(min_length=1, max_length=MAX_ADDRESS_LENGTH)]
GroupName = Annotated[str, Meta(min_length=1, max_length=MAX_ADDRESS_LENGTH)]
