"""Asks the service over HTTP where nginx asks it: on its Unix socket, or on its port."""

from generator.host.clients import listener as connected
from generator.host.store import Store


class NoAnswer(Exception):
    """The service did not answer; the message says where it was asked, and why not."""


def listener_of(store: Store, otherwise: str) -> str:
    """Where what is installed listens; where nothing is, `otherwise`: the service may run in a checkout."""
    number = store.current
    return otherwise if number is None else store.generation(number).listener


def ask(listener: str, path: str) -> bytes:
    """The body of the answer to GET.

    Raises:
        NoAnswer
    """
    import http.client

    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = connected(listener)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except TimeoutError:
        raise NoAnswer(f"{listener}: no answer in time") from None
    except OSError as error:
        raise NoAnswer(f"{listener}: {error.strerror or error}") from None
    except http.client.HTTPException as error:
        raise NoAnswer(f"{listener}: {type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise NoAnswer(f"{listener}: {path} was answered with {answer.status}")
    return body
