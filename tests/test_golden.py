"""Every byte of every golden bundle, and every file name; `make golden` records them anew."""

from pathlib import Path

import pytest

from generator.config.schema import Deploy
from generator.rendering.agreement import disagreements
from generator.rendering.render import render
from service.declaration import settings_of, values_of
from tools.golden import contents, deploy_of, deployments, expected


@pytest.mark.parametrize("deployment", deployments(), ids=lambda path: path.name)
def test_a_golden_bundle_is_rendered_to_the_byte(deployment: Path) -> None:
    assert contents(render(deploy_of(deployment))) == expected(deployment)


@pytest.mark.parametrize("deployment", deployments(), ids=lambda path: path.name)
def test_the_files_of_a_golden_bundle_agree(deployment: Path) -> None:
    assert disagreements(render(deploy_of(deployment))) == []


@pytest.mark.parametrize("deployment", deployments(), ids=lambda path: path.name)
def test_a_golden_bundle_has_the_modes_that_its_files_will_have(deployment: Path) -> None:
    for file in render(deploy_of(deployment)).files:
        path = deployment / "expected" / file.path
        # git keeps no more of a mode than whether its owner may execute the file.
        assert path.is_symlink() or bool(path.stat().st_mode & 0o100) == bool(file.mode & 0o100)


def test_every_setting_differs_from_its_default_in_a_golden_bundle() -> None:
    given = [values_of(deploy_of(deployment)) for deployment in deployments()]
    for setting in settings_of(Deploy):
        assert any(values[setting.key] != setting.default for values in given), setting.key


def test_every_choice_of_a_setting_is_made_by_a_golden_bundle() -> None:
    given = [values_of(deploy_of(deployment)) for deployment in deployments()]
    for key in ("server", "manager", "tls"):
        [setting] = [setting for setting in settings_of(Deploy) if setting.key == key]
        assert {values[key] for values in given} == set(setting.choices)
