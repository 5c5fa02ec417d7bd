"""Every key of Mimir's is accepted in both forms; a key that neither program knows is refused with the nearest name."""

import socket

import pytest
import yaml

from mimir_ingest.config.effective import nested
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import Key, registry
from mimir_ingest.config.limits import Limits
from mimir_ingest.config.parse import IGNORED_FLAGS, parse_file, parse_flags
from mimir_ingest.config.settings import build, used_keys, used_paths
from mimir_ingest.config.stand_ins import stand_in
from mimir_ingest.config.values import MASK, to_flag_text, to_plain

KEYS = list(registry())
MIMIR_KEYS = 1757


def plain_default(key: Key):
    return to_plain(key, key.default, mask=False)


def test_the_table_has_all_of_mimirs_keys():
    vendored = [key for key in KEYS if not key.own and key.category != "hidden"]
    hidden_but_documented = {"limits.name_validation_scheme", "limits.alertmanager_max_grafana_config_size_bytes",
                             "limits.alertmanager_max_grafana_state_size_bytes"}  # fmt: skip
    assert len(vendored) + len(hidden_but_documented) == MIMIR_KEYS


def test_all_keys_are_accepted_with_their_defaults_as_yaml():
    text = yaml.safe_dump(nested((key.path, plain_default(key)) for key in KEYS))
    explicit = parse_file(text, name="all.yaml", registry=registry())
    assert len(explicit.values) == len(KEYS)
    assert {path: value for path, value in explicit.values.items() if value != registry().by_path(path).default} == {}
    settings = build(explicit)
    assert settings.effective.plain("diff").keys() <= {"ingest_storage"}
    assert len(settings.notices) > 1500


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_all_keys_with_a_flag_are_accepted_with_their_defaults_as_flags(dashes):
    flagged = [key for key in KEYS if key.flag]
    line = parse_flags([f"{dashes}{key.flag}={to_flag_text(key, key.default)}" for key in flagged], registry())
    assert len(line.explicit.values) == len(flagged)
    for key in flagged:
        assert line.explicit.values[key.path] == key.default, key.path
    build(line.explicit)


def test_flags_and_paths_are_unique_and_no_key_is_a_section():
    flags = [key.flag for key in KEYS if key.flag]
    assert len(set(flags)) == len(flags)
    assert not [key.path for key in KEYS if registry().is_section(key.path)]


def test_every_key_without_use_says_what_stands_in_its_place():
    for key in KEYS:
        if key.path not in used_paths():
            assert stand_in(key.path) != "nothing needs it here", key.path
    assert all(IGNORED_FLAGS[name][1] for name in IGNORED_FLAGS)


def test_every_key_in_use_is_in_the_table_and_described():
    assert used_keys().keys() == used_paths()
    assert [path for path, text in used_keys().items() if not text] == []


def test_every_key_of_this_programs_own_is_in_use():
    own = {key.path for key in KEYS if key.own}
    later_mimirs = {
        path for path in own if path.startswith(("ingest_storage.kafka.sasl_", "ingest_storage.kafka.tls_"))
    }
    assert own - later_mimirs <= used_paths()


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("server.http-listen-prt", "server.http-listen-port"),
        ("ingest-storage.kafka.adress", "ingest-storage.kafka.address"),
        ("ingest_storage.kafka.topic", "ingest-storage.kafka.topic"),
        ("limits.ingestion_rate", "distributor.ingestion-rate-limit"),
        ("limits.ingestion-rate", "distributor.ingestion-rate-limit"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_name(flag, nearest):
    with pytest.raises(ConfigError, match=f"unknown flag -{flag}; did you mean -{nearest}\\?"):
        parse_flags([f"-{flag}=1"], registry())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits:\n  max_label_nams: 1\n", 'line 2: unknown key "limits.max_label_nams"; did you mean "limits.max_l'),
        ("\nserver:\n  http_port: 1\n", 'line 3: unknown key "server.http_port"; did you mean "server.http_'),
        ("ingestion_rate: 1\n", 'unknown key "ingestion_rate"; did you mean "limits.ingestion_rate"?'),
        ("limit:\n  x: 1\n", 'unknown key "limit"; did you mean "limits"?'),
    ],
)  # fmt: skip
def test_an_unknown_yaml_key_is_refused_with_line_and_nearest_name(text, message):
    with pytest.raises(ConfigError) as error:
        parse_file(text, name="c.yaml", registry=registry())
    assert message in str(error.value)


SECRETS = [key for key in KEYS if key.secret]


def test_secrets_are_the_ones_that_hold_credentials():
    paths = {key.path for key in SECRETS}
    assert {
        "ingest_storage.kafka.sasl_password",
        "ingest_storage.kafka.sasl_oauthbearer_token",
        "ingest_storage.kafka.sasl_msk_iam_secret_key",
        "blocks_storage.s3.secret_access_key",
        "common.storage.azure.account_key",
        "ruler_storage.gcs.service_account",
        "ingester.ring.kvstore.consul.acl_token",
        "memberlist.tls_key_path",
        "vault.auth.token.token",
    } - paths == {"memberlist.tls_key_path"}
    assert "ingester.ring.num_tokens" not in paths


@pytest.mark.parametrize("key", SECRETS, ids=lambda key: key.path)
def test_a_secret_never_appears_in_any_view(key):
    explicit = parse_file(yaml.safe_dump(nested([(key.path, "hunter2-hunter2")])), name="c", registry=registry())
    explicit.values.update(
        {"blocks_storage.s3.access_key_id": "a", "blocks_storage.s3.secret_access_key": "hunter2-hunter2"}
    )
    explicit.values["ingest_storage.kafka.sasl_username"] = "someone"
    if key.path.endswith("tls_config.key"):
        explicit.values[key.path.removesuffix("key") + "cert"] = "a"
    settings = build(explicit)
    for mode in ("full", "diff", "defaults"):
        assert "hunter2" not in settings.effective.yaml(mode)
    assert MASK in settings.effective.yaml("diff")
    assert "hunter2" not in str(settings.ingest_storage) + str(settings.blocks_storage)


def test_a_password_within_an_address_is_masked():
    explicit = parse_flags(["-ruler.alertmanager-url=http://me:hunter2@host/x"], registry()).explicit
    assert build(explicit).effective.plain("diff") == {
        "limits": {"ruler_alertmanager_client_config": {"alertmanager_url": f"http://me:{MASK}@host/x"}}
    }


def test_the_host_name_stands_for_the_instance_id():
    assert registry().by_path("ingester.ring.instance_id").default == socket.gethostname()


def test_limits_have_all_keys_of_their_section():
    limits = build(parse_flags([], registry()).explicit).limits
    assert isinstance(limits, Limits)
    assert {f"limits.{name}" for name in limits.values} == {key.path for key in KEYS if key.is_limit}
