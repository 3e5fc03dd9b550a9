"""What is seen of an application that is there already: small projects as people have them."""

import os
from pathlib import Path

import pytest

from generator.config.load import load
from generator.config.sources import with_project
from tests.generator.front_door import Outcome, wsbundle

FASTAPI = {"main.py": "from fastapi import FastAPI\n\napp = FastAPI()\n\n@app.get('/healthz')\ndef health(): ...\n"}
FACTORY = "from fastapi import FastAPI\n\ndef create_app():\n    return FastAPI()\n"
DJANGO = {
    "manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notes.settings")\n',
    "notes/settings.py": 'STATIC_URL = "assets/"\nSTATIC_ROOT = BASE_DIR / "collected"\n',
    "notes/asgi.py": "application = get_asgi_application()\n",
    "requirements.txt": "Django==5.2\n",
}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def begun(directory: Path) -> Outcome:
    return wsbundle("init", "--app", "shop.mycompany.org", "-f", str(directory / "deploy.yaml"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (FASTAPI, {"callable": "main:app", "health": "/healthz", "requirements": None}),
        (
            DJANGO,
            {
                "callable": "notes.asgi:application",
                "requirements": "requirements.txt",
                "static": {"/assets/": "collected"},
                "build": ("python manage.py collectstatic --noinput",),
                "before": ("python manage.py migrate --noinput",),
            },
        ),
        (
            {
                "shop/__init__.py": "",
                "shop/asgi.py": "import socketio\napplication = socketio.ASGIApp(server, other)\n",
            },
            {"callable": "shop.asgi:application"},
        ),
        ({"src/api.py": "api: FastAPI = FastAPI(title='x')\n"}, {"callable": "api:api"}),
        (
            {f"backend/{name}": text for name, text in DJANGO.items()} | {"frontend/app.js": "", "tools/gen.py": ""},
            {"callable": "notes.asgi:application", "path": "backend", "requirements": "requirements.txt"},
        ),
        (
            FASTAPI | {"examples/requirements.txt": "", "examples/app.py": "api = FastAPI()\n"},
            {"callable": "main:app", "path": "."},
        ),
        (
            {"api/requirements.txt": "", "api/main.py": "", "requirements.txt": "", "main.py": FASTAPI["main.py"]},
            {"callable": "main:app", "path": ".", "requirements": "requirements.txt"},
        ),
        (
            {"shop/asgi.py": "from shop import create_app\napplication = create_app()\n", "shop/__init__.py": FACTORY},
            {"callable": "shop.asgi:application"},
        ),
        (
            {"main.py": "from fasthtml.common import *\napp, rt = fast_app()\ntask = make_task()\n"},
            {"callable": "main:app"},
        ),
        (
            {f"backend/{name}": text for name, text in DJANGO.items() if name != "requirements.txt"}
            | {"requirements.txt": "Django==5.2\n"},
            {"callable": "notes.asgi:application", "path": "backend", "requirements": "../requirements.txt"},
        ),
        (
            FASTAPI | {"requirements/base.txt": "fastapi==0.118.0\n", "requirements/production.txt": "-r base.txt\n"},
            {"requirements": "requirements/production.txt"},
        ),
    ],
    ids=[
        "fastapi",
        "django",
        "socketio",
        "annotated",
        "in-a-folder",
        "with-a-folder",
        "beside-a-folder",
        "factory",
        "fasthtml",
        "django-in-a-folder",
        "folder-of-requirements",
    ],
)
def test_what_is_seen_is_a_deploy_yaml_that_is_sound(
    files: dict[str, str], expected: dict[str, object], tmp_path: Path
) -> None:
    write(tmp_path, files)
    outcome = begun(tmp_path)
    assert outcome.code == 0, outcome.err
    loaded = load(str(tmp_path / "deploy.yaml"))
    assert {key: getattr(loaded.deploy.app, key) for key in expected} == expected
    with_project(loaded)


def test_the_usual_name_comes_first_and_others_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"admin/panel.py": "panel = Starlette()\n", "server.py": "app = FastAPI()\ninner = FastAPI()\n"})
    assert begun(tmp_path).code == 0
    text = (tmp_path / "deploy.yaml").read_text()
    assert "\n  callable: server:app\n" in text
    assert "# Also found: server:inner\n" in text
    assert "# Also found: admin.panel:panel\n" in text


def test_what_reaches_out_is_asked_what_it_needs(tmp_path: Path) -> None:
    write(tmp_path, FASTAPI | {"requirements.txt": "fastapi==0.118.0\nredis==5.0.0\nhttpx==0.28.1\n"})
    assert begun(tmp_path).code == 0
    assert "# redis, httpx looks as if it reached others." in (tmp_path / "deploy.yaml").read_text()


@pytest.mark.parametrize(
    ("lock", "fix"),
    [
        ("poetry.lock", "write requirements.txt, `poetry export -o requirements.txt`, and name that"),
        ("", "write uv.lock, `uv lock`, and name that"),
    ],
)
def test_how_to_lock_what_it_needs_is_said_in_the_words_of_what_it_uses(tmp_path: Path, lock: str, fix: str) -> None:
    write(tmp_path, FASTAPI | {"pyproject.toml": "", lock or "a": ""})
    assert begun(tmp_path).code == 0
    assert f"  # Neither uv.lock nor requirements.txt is there: {fix}\n" in (tmp_path / "deploy.yaml").read_text()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"app.py": "from celery import Celery\napp = Celery()\n"}, "no ASGI application is seen in"),
        ({"app.py": "from shop import create_app\napp = create_app()\n"}, "no ASGI application is seen in"),
        ({"app.py": "from flask import Flask\napp = Flask(__name__)\n"}, "is WSGI, and ASGI is served; write asgi.py"),
    ],
)
def test_where_nothing_is_seen_nothing_is_written(tmp_path: Path, files: dict[str, str], said: str) -> None:
    write(tmp_path, files)
    outcome = begun(tmp_path)
    assert (outcome.code, said in outcome.err) == (1, True)
    assert not (tmp_path / "deploy.yaml").exists()


def test_what_cannot_be_read_or_imported_is_passed_by(tmp_path: Path) -> None:
    write(tmp_path, FASTAPI | {"my-scripts/app.py": "application = FastAPI()\n"})
    (tmp_path / "broken.py").symlink_to("nowhere.py")
    os.mkfifo(tmp_path / "pipe.py")
    outcome = begun(tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "\n  callable: main:app\n" in (tmp_path / "deploy.yaml").read_text()


def test_a_package_in_src_is_named_as_it_is_imported(tmp_path: Path) -> None:
    write(tmp_path, {"src/shop/main.py": FASTAPI["main.py"], "requirements.txt": "fastapi==0.118.0\n"})
    assert begun(tmp_path).code == 0
    deploy = load(str(tmp_path / "deploy.yaml"))
    assert (deploy.deploy.app.callable, deploy.deploy.app.path) == ("shop.main:app", ".")
    assert with_project(deploy)[0].project is not None
