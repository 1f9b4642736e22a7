"""Settings: each wrong one is named, with what to write instead."""

from __future__ import annotations

from dataclasses import fields

import pytest

from botsrt import conf
from botsrt.conf import ConfigError, RuntimeConfig, from_mapping


def test_without_variables_the_defaults_hold():
    assert from_mapping({}) == RuntimeConfig()


def test_a_variable_sets_its_field_in_any_case():
    assert from_mapping({"LEASE_SECONDS": "3"}).lease_seconds == 3.0
    assert from_mapping({"concurrency": "7"}).concurrency == 7
    assert from_mapping({"Adapter_Packages": " a , b.c ,"}).adapter_packages == ("a", "b.c")
    assert from_mapping({"TROUBLE_TEXT": "Oh no."}).trouble_text == "Oh no."


def test_an_unknown_variable_is_named_with_the_nearest_that_exists():
    with pytest.raises(ConfigError, match=r"BOTSRT_LEASE_SECOND: .* Did you mean BOTSRT_LEASE_SECONDS\?"):
        from_mapping({"LEASE_SECOND": "3"})
    with pytest.raises(ConfigError, match=r"BOTSRT_QQQ: there is no such setting\.$"):
        from_mapping({"QQQ": "3"})


@pytest.mark.parametrize("field", [item for item in fields(RuntimeConfig) if isinstance(item.default, int | float)])
@pytest.mark.parametrize("text", ["", "many", "nan", "-1", "1e400", "inf", "-inf", "10**9"])
def test_a_number_that_cannot_be_used_is_refused_by_name_with_the_default(field, text):
    with pytest.raises(ConfigError, match=rf"BOTSRT_{field.name.upper()}: .*the default is {field.default}"):
        from_mapping({field.name: text})


@pytest.mark.parametrize("field", [item for item in fields(RuntimeConfig) if isinstance(item.default, int)])
def test_a_fraction_is_no_whole_number(field):
    with pytest.raises(ConfigError, match=r"'2\.5' is not a whole number"):
        from_mapping({field.name: "2.5"})


@pytest.mark.parametrize("field", fields(RuntimeConfig))
def test_every_setting_is_documented_and_its_default_is_within_its_range(field):
    assert field.metadata["help"].endswith(".")
    if isinstance(field.default, int | float):
        assert from_mapping({field.name: str(field.default)}) == RuntimeConfig()


@pytest.mark.parametrize("name", ["concurrency", "max_attempts", "max_history", "max_batch"])
def test_a_number_above_its_range_is_refused(name):
    with pytest.raises(ConfigError, match=rf"BOTSRT_{name.upper()}: 99999 is out of range"):
        from_mapping({name: "99999"})


@pytest.mark.parametrize("name", ["RUN_TIMEOUT_SECONDS", "SEND_TIMEOUT_SECONDS"])
def test_a_run_or_a_call_must_end_before_its_claim_does(name):
    with pytest.raises(ConfigError, match=rf"BOTSRT_{name}.*BOTSRT_CLAIM_TIMEOUT_SECONDS"):
        from_mapping({name: "360"})
    from_mapping({name: "359"})


def test_the_configuration_is_read_from_the_settings_once(settings):
    settings.BOTSRT = {"CONCURRENCY": "3"}
    assert conf.load().concurrency == 3
    settings.BOTSRT = {"CONCURRENCY": "4"}
    assert conf.load().concurrency == 3


@pytest.mark.parametrize("text", ["", " ", " , ,"])
@pytest.mark.parametrize("name", ["ADAPTER_PACKAGES", "AGENT_PACKAGES"])
def test_an_empty_list_of_packages_is_refused(name, text):
    with pytest.raises(ConfigError, match=rf"BOTSRT_{name}: .*the default is botsrt\."):
        from_mapping({name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [("TROUBLE_TEXT", ""), ("TROUBLE_TEXT", " \n"), ("TROUBLE_TEXT", "x" * 1001), ("RESEND_LABEL", "x" * 201)],
)
def test_words_to_people_that_could_not_be_sent_are_refused(name, text):
    with pytest.raises(ConfigError, match=rf"BOTSRT_{name}: "):
        from_mapping({name: text})


def test_the_resend_label_may_be_empty():
    assert from_mapping({"RESEND_LABEL": ""}).resend_label == ""
