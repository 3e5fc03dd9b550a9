"""What every way to start the notification center has in common: its settings, and the center itself."""

import asyncio
import os
import secrets
import time
from collections.abc import Mapping

from service.core.center import Center
from service.core.identity import Identity, TokenError, Verify
from service.declaration import Fault
from service.process.begin import declared_settings_or_exit, exit_for
from service.process.footprint import footprint
from service.process.logs import is_told, keep_requests_out, tell
from service.process.uuids import Uuids
from service.settings import Settings, SettingsError
from service.tokens import Keys, KeysError


def settings_or_exit(environ: Mapping[str, str]) -> Settings:
    """The settings from an environment; when they are wrong, all faults are printed and the process ends."""
    settings = declared_settings_or_exit(environ)
    check_or_exit(settings)
    return settings


def check_or_exit(settings: Settings) -> None:
    """End the process if the notification center cannot run with these settings.

    With `auth: token` the keys are a part of them: gunicorn would start workers without end that find none.
    """
    try:
        _verify_with(settings)
        _check_mailbox(settings)
    except SettingsError as error:
        exit_for(error)


def center_of(settings: Settings) -> Center:
    """The notification center of this process."""
    keep_requests_out()
    return Center(
        settings,
        _verify_with(settings),
        clock=time.monotonic,
        now=time.time,
        soon=lambda act: asyncio.get_running_loop().call_soon(act),
        draw_address=Uuids().draw,
        draw_secret=lambda: secrets.token_urlsafe(16),
        tell=tell,
        is_heard=is_told,
        measure=footprint,
        number=os.getpid(),
    )


def _verify_with(settings: Settings) -> Verify:
    """Raises: SettingsError: tokens are asked for, and there are no keys."""
    if settings.keys is None:
        if settings.auth == "token":
            fault = Fault("is not set, and WEBSOCKET_AUTH=token needs it", "name a file of keys")
            raise SettingsError({"WEBSOCKET_KEYS": fault})
        return _without_keys
    keys = Keys(settings.keys)
    if settings.auth == "token":
        try:
            keys.load()
        except KeysError as error:
            fault = Fault(f"{error.path} {error.fault.what}", error.fault.fix)
            raise SettingsError({"WEBSOCKET_KEYS": fault}) from None
    return keys


def _check_mailbox(settings: Settings) -> None:
    """Raises: SettingsError: messages are to be kept, and nobody knows for whom or where."""
    faults = {}
    if settings.mailbox.keep != "none":
        if settings.auth != "token":
            fault = Fault("is not token, and WEBSOCKET_MAILBOX_KEEP needs it", "write token, and name a file of keys")
            faults["WEBSOCKET_AUTH"] = fault
        if settings.mailbox.keep == "disk" and settings.mailbox.directory is None:
            fault = Fault("is not set, and WEBSOCKET_MAILBOX_KEEP=disk needs it", "name a directory of its own")
            faults["WEBSOCKET_MAILBOX_DIRECTORY"] = fault
        if settings.mailbox.keep == "engine" and settings.engine.url is None:
            fault = Fault("is not set, and WEBSOCKET_MAILBOX_KEEP=engine needs it", "say where the engine is")
            faults["WEBSOCKET_ENGINE_URL"] = fault
    if faults:
        raise SettingsError(faults)


def _without_keys(token: str) -> Identity:
    raise TokenError("no keys are configured")
