"""Which store keeps the messages of this deployment."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from service.core.center import Center
from service.mailbox.database import FILE
from service.mailbox.disk import Disk

if TYPE_CHECKING:
    from service.mailbox.streams import Streams

logger = logging.getLogger("service")


async def open_mailbox(center: Center) -> "Disk | Streams | None":
    """What the settings ask for; to be closed when the last client has gone.

    Raises:
        MailboxError, EngineError
    """
    settings = center.settings.mailbox
    if settings.keep == "disk":
        return Disk(settings, center.mail)
    if settings.directory is not None and (path := Path(settings.directory, FILE)).exists():
        logger.warning("mailbox.keep is %s: what is in %s stays there, and is not delivered", settings.keep, path)
    if settings.keep == "engine":
        from service.mailbox.streams import Streams  # nobody else needs the script

        streams = Streams(settings, center.settings.engine, center.mail)
        await streams.ready()
        return streams
    return None
