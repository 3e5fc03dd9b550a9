"""A mapping against the declaration."""

from generator.config.check import Checked, check
from generator.config.document import MappingNode, Origin, parse
from generator.config.schema import Deploy
from service.declaration import settings_of

EVERY_KEY = {setting.key for setting in settings_of(Deploy)}


def checked(text: str) -> Checked:
    root, faults = parse(text, "deploy.yaml")
    assert isinstance(root, MappingNode)
    return check(root, Deploy, faults)


def unsound(text: str) -> set[str]:
    return EVERY_KEY - checked(text).sound


def faults(text: str) -> list[str]:
    return [str(fault) for fault in checked(text).faults]


def test_what_is_not_given_has_its_default() -> None:
    assert checked("domain: a.org\n").deploy == Deploy(domain="a.org")


def test_a_section_that_holds_nothing_leaves_its_defaults() -> None:
    found = checked("domain: a.org\nping:\nlimits: null\nenv:\n")
    assert (found.deploy, found.faults) == (Deploy(domain="a.org"), [])


def test_every_given_key_has_the_place_of_its_value() -> None:
    found = checked("domain: a.org\nping: {timeout: 5}\nenv:\n  A: 1\n")
    assert {key: (origin.line, origin.column) for key, origin in found.origins.items()} == {
        "domain": (1, 9),
        "ping.timeout": (2, 17),
        "env": (4, 3),
        "env.A": (4, 6),
    }


def test_a_key_that_is_not_given_is_looked_for_at_the_next_and_then_at_the_top() -> None:
    found = checked("domain: a.org\nport: 9000\n")
    assert found.origin_of("host", "port") == Origin("deploy.yaml", 2, 7)
    assert found.origin_of("host") == Origin("deploy.yaml", 1, 1)


def test_a_sound_mapping_is_sound_throughout() -> None:
    assert unsound("domain: a.org\n") == set()


def test_a_fault_makes_its_own_key_unsound() -> None:
    assert unsound("domain: a.org\nport: 80\n") == {"port"}


def test_a_missing_key_is_unsound() -> None:
    assert unsound("port: 9000\n") == {"domain"}
    assert unsound("port: 9000\nport: 9001\n") == {"domain", "port"}


def test_an_unknown_key_makes_no_known_one_unsound() -> None:
    assert unsound("domain: a.org\ncolour: blue\nping: {colour: red}\n") == set()


def test_a_section_that_is_a_value_makes_all_its_settings_unsound() -> None:
    assert unsound("domain: a.org\nping: 20\n") == {"ping.interval", "ping.timeout"}


def test_a_key_given_twice_is_unsound_for_nobody_knows_which_is_meant() -> None:
    assert unsound("domain: a.org\nport: 9000\nport: 9001\n") == {"port"}


def test_what_may_be_one_or_many_is_either() -> None:
    one, many = (checked(f"domain: {text}\n") for text in ("a.org", "[a.org, b.org]"))
    assert (one.deploy.domain, many.deploy.domain) == ("a.org", ("a.org", "b.org"))
    assert one.faults == many.faults == []
    assert (unsound("domain: []\n"), unsound("domain: {a.org: b.org}\n")) == ({"domain"}, {"domain"})


def test_a_wrong_item_leaves_the_other_items_of_its_list_to_the_rules() -> None:
    found = checked("domain: a.org\nnginx: {trusted_proxies: [10.0.0.1, x, 10.0.0.2]}\n")
    assert found.deploy.nginx.trusted_proxies == ("10.0.0.1", "10.0.0.2")
    assert found.sound == EVERY_KEY


def test_a_wrong_entry_leaves_the_other_entries_of_its_mapping_to_the_rules() -> None:
    found = checked("domain: a.org\nenv: {A: 1, 2B: 2, C: [3], D: 4}\n")
    assert found.deploy.env == {"A": "1", "D": "4"}
    assert found.sound == EVERY_KEY


def test_a_text_that_could_not_be_read_is_not_also_said_to_lack_a_key() -> None:
    assert faults("port: 9000\nport: 9001\n") == ["deploy.yaml:2:1: port: is given twice, first in line 1; keep one"]


def test_a_misspelt_required_key_is_told_once() -> None:
    assert faults("domian: a.org\n") == ["deploy.yaml:1:1: domian: is not a setting; did you mean domain?"]


def test_a_required_key_with_a_wrong_value_is_told_once() -> None:
    assert len(faults("domain: a.org\nname: [a]\n")) == 1


def test_text_is_taken_to_the_letter_whatever_it_looks_like() -> None:
    deploy = checked("domain: a.org\nwelcome: no\nenv: {A: 0755, B: 1.10, C: yes, D: 1:30, E: 'null', F: ''}\n").deploy
    assert deploy.welcome == "no"
    assert deploy.env == {"A": "0755", "B": "1.10", "C": "yes", "D": "1:30", "E": "null", "F": ""}
