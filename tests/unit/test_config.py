"""Settings come from file and environment, and what does not add up is named."""

from pathlib import Path

import pytest

from gateway.config import DicomAddress, Settings, load_settings
from gateway.errors import ConfigurationError
from gateway.wiring import open_settings_store

SAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "hybridmed.toml"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "absent.toml"))
    monkeypatch.chdir(tmp_path)


def test_the_sample_file_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands uncommented in the sample is what holds without it."""
    defaults = load_settings()

    monkeypatch.setenv("HYBRIDMED_CONFIG", str(SAMPLE))

    assert load_settings() == defaults


def test_the_sample_file_names_every_setting() -> None:
    """An operator finds each setting in the sample."""
    text = SAMPLE.read_text(encoding="utf-8")

    assert [name for name in Settings.model_fields if name not in text] == []


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A setting in both places has the environment's value."""
    file = tmp_path / "hybridmed.toml"
    file.write_text('ae_title = "FILE"\nquiet_s = 3\n')
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(file))
    monkeypatch.setenv("HYBRIDMED_AE_TITLE", "ENVIRONMENT")

    settings = load_settings()

    assert (settings.ae_title, settings.quiet_s) == ("ENVIRONMENT", 3)


def test_destinations_from_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-STORE and DICOMweb destinations stand side by side, separated by commas."""
    monkeypatch.setenv("HYBRIDMED_DESTINATIONS", "PACS=ORTHANC@127.0.0.1:4242, WEB=https://pacs.example/dicom-web")

    pacs, web = load_settings().destinations

    assert pacs.dicom == DicomAddress("ORTHANC", "127.0.0.1", 4242)
    assert (web.name, web.address, web.dicom) == ("WEB", "https://pacs.example/dicom-web", None)


def test_destinations_from_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A table gives a destination its options, and a rule may name it."""
    file = tmp_path / "hybridmed.toml"
    file.write_text(
        '[destinations.PACS]\naddress = "A@host:104"\nseg_encoding = "LABELMAP"\n'
        '[[rules]]\nname = "ct"\nmatch.modality = "CT"\nbundles = ["b"]\ndestinations = ["PACS"]\n'
    )
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(file))

    settings = load_settings()

    assert settings.destinations[0].seg_encoding == "LABELMAP"
    assert settings.rules[0].match.modality == ("CT",)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HYBRIDMED_DESTINATIONS", "PACS", "NAME=AET@host:port"),
        ("HYBRIDMED_DESTINATIONS", "A=X@h:1,A=Y@h:2", "stands twice"),
        ("HYBRIDMED_DICOM_PORT", "0", "dicom_port"),
        ("HYBRIDMED_AE_TITLE", "SEVENTEEN_LETTERS", "not an AE title"),
        ("HYBRIDMED_QUIET_S", "soon", "quiet_s"),
        ("HYBRIDMED_AUTH", "password", "auth"),
        ("HYBRIDMED_AUTH", "oidc", "HYBRIDMED_OIDC__ISSUER"),
        ("HYBRIDMED_AUTH", "none,token", "'none' stands alone"),
        ("HYBRIDMED_ACCESS__TRUSTED_PROXIES", "0.0.0.0/0", "is everybody"),
        ("HYBRIDMED_ACCESS__TRUSTED_PROXIES", "10.0.0.1, proxy", "'proxy' is no network address"),
        ("HYBRIDMED_ACCESS__CORS_ORIGINS", "*", "is no origin"),
        ("HYBRIDMED_TLS__KEY", "server.key", "HYBRIDMED_TLS__CERTIFICATE"),
        ("HYBRIDMED_DESTINATIONS", "PACS=A@h:0", "a port is 1 to 65535"),
        ("HYBRIDMED_DESTINATIONS", "PACS=A@h:65536", "a port is 1 to 65535"),
        ("HYBRIDMED_RULES", '[{"name": "r", "match": {"description": "CT ("}}]', "'CT (' is not a regular expression"),
        ("HYBRIDMED_RULES", '[{"name": "r", "match": {"tags": {"Modality": "["}}}]', "'[' is not a regular expression"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    """The sentence names the field and what was expected."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert said in str(refused.value)


def test_an_unknown_setting_in_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt setting is an error, not a silent default."""
    file = tmp_path / "hybridmed.toml"
    file.write_text('ae_titel = "X"\n')
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(file))

    with pytest.raises(ConfigurationError, match="ae_titel"):
        load_settings()


def test_a_public_address_needs_authentication_and_an_ae_list() -> None:
    """Open to the network without either, the gateway refuses to start and says what to set."""
    with pytest.raises(ConfigurationError) as refused:
        load_settings(bind="0.0.0.0")  # noqa: S104 the very address that must be refused

    assert "HYBRIDMED_AUTH=token" in str(refused.value)
    assert "HYBRIDMED_ALLOWED_AES" in str(refused.value)
    assert "HYBRIDMED_TLS__CERTIFICATE" in str(refused.value)


def test_a_public_address_that_is_guarded_is_taken(tmp_path: Path) -> None:
    """With tokens, an AE list and TLS (ours, or that of a proxy that is named) the same address is allowed."""
    guarded = {"bind": "0.0.0.0", "auth": "token", "allowed_aes": ("CT1",)}  # noqa: S104 as above

    behind = load_settings(**guarded, access={"trusted_proxies": "10.0.0.1, 10.1.0.0/16"})
    alone = load_settings(**guarded, tls={"certificate": tmp_path / "c.pem"})

    assert behind.access.trusted_proxies == ("10.0.0.1", "10.1.0.0/16")
    assert alone.tls.is_on_http
    for wrong in ({}, {"tls": {"certificate": tmp_path / "c.pem", "http": False}}):
        with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES"):
            load_settings(**guarded, **wrong)


def test_secrets_do_not_show_in_a_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings object in a traceback, and a sentence about a wrong setting, show none of them."""
    monkeypatch.setenv("HYBRIDMED_TOKENS", "secret-word")
    monkeypatch.setenv("HYBRIDMED_DATABASE_URL", "postgresql://me:secret-word@h/x")
    monkeypatch.setenv("HYBRIDMED_BROKER_URL", "amqp://me:secret-word@h/")
    monkeypatch.setenv("HYBRIDMED_OIDC__CLIENT_SECRET", "secret-word")

    settings = load_settings()
    assert "secret-word" not in repr(settings)
    assert "secret-word" not in str(settings)
    assert settings.oidc.client_secret is not None
    assert settings.oidc.client_secret.get_secret_value() == "secret-word"
    monkeypatch.setenv("HYBRIDMED_OIDC__CLIENT_SECRET_FILE", "/run/secrets/oidc")
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "secret-word",
        "oracle+none://me:secret-word@h/x",
        "mysql://me:secret-word@h/x",
        "postgresql://me:secret-word@h:no/x",
    ],
)
def test_a_database_url_that_cannot_be_used_is_named_without_its_password(url: str) -> None:
    """No URL, no such dialect, a driver that is not installed, no port: the sentence names the setting alone."""
    with pytest.raises(ConfigurationError) as refused:
        open_settings_store(load_settings(database_url=url))

    assert "HYBRIDMED_DATABASE_URL" in str(refused.value)
    assert "secret-word" not in str(refused.value)


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where a folder should be made: the sentence names the setting and the reason."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="HYBRIDMED_DATA_DIR"):
        open_settings_store(load_settings(data_dir=tmp_path / "file" / "data"))


def test_peers_to_call_are_the_dicom_destinations_and_the_move_destinations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both settings name peers by AE title; the one meant for it wins; a DICOMweb destination is none."""
    monkeypatch.setenv("HYBRIDMED_DESTINATIONS", "PACS=ORTHANC@127.0.0.1:4242, WEB=https://pacs.example/dicom-web")
    monkeypatch.setenv("HYBRIDMED_MOVE_DESTINATIONS", "VIEWER@10.0.0.7:104, ORTHANC@127.0.0.1:4243")

    peers = load_settings().dicom_peers

    assert peers == {
        "ORTHANC": DicomAddress("ORTHANC", "127.0.0.1", 4243),
        "VIEWER": DicomAddress("VIEWER", "10.0.0.7", 104),
    }


def test_a_research_destination_is_no_peer_for_what_names_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where move_destinations name its title; for results of storage commitment its address is known."""
    monkeypatch.setenv("HYBRIDMED_MOVE_DESTINATIONS", "VIEWER@10.0.0.7:104, RESEARCH@10.0.0.9:105")
    destinations = [
        {"name": "PACS", "address": "ORTHANC@127.0.0.1:4242"},
        {"name": "RESEARCH", "address": "RESEARCH@10.0.0.9:104", "deidentify": "basic"},
        {"name": "RESEARCH_FHIR", "address": "fhir+https://research.example/r4", "deidentify": "basic"},
    ]

    settings = load_settings(destinations=destinations)

    assert settings.research_aes == {"RESEARCH"}
    assert set(settings.identified_peers) == {"ORTHANC", "VIEWER"}
    assert set(settings.dicom_peers) == {"ORTHANC", "VIEWER", "RESEARCH"}


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("RESEARCH@10.0.0.9:104", "RESEARCH@10.0.0.9:104+tls"),
        ("https://research.example/dicom-web", "https://research.example/dicom-web/"),
    ],
)
def test_an_address_gets_results_with_the_patient_or_without(address: str, same: str) -> None:
    """One of two names for it must not undo what the other promises; another title at the same port is another."""
    marked = {"name": "RESEARCH", "address": address, "deidentify": "basic"}

    with pytest.raises(ConfigurationError, match="RESEARCH and PLAIN are the same address"):
        load_settings(destinations=[{"name": "PLAIN", "address": same}, marked])
    assert load_settings(destinations=[{"name": "OTHER", "address": "OTHER@10.0.0.9:104"}, marked])


def test_a_title_that_may_send_may_nothing_else_unless_a_peer_says_so() -> None:
    """Of both lists the table decides; without either everybody may everything, as on a laptop."""
    peers = ({"ae_title": "PACS", "may": ("store", "query", "retrieve")},)

    settings = load_settings(allowed_aes=("CT1", "PACS"), peers=peers)

    assert {peer.ae_title: peer.may for peer in settings.calling_peers} == {
        "PACS": ("store", "query", "retrieve"),
        "CT1": ("store", "commit"),
    }
    assert settings.calling_aes == ("PACS", "CT1")
    assert load_settings().calling_peers == ()


def test_a_move_destination_without_a_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which value, and what was expected."""
    monkeypatch.setenv("HYBRIDMED_MOVE_DESTINATIONS", "VIEWER@10.0.0.7")

    with pytest.raises(ConfigurationError, match=r"move_destinations.*VIEWER@10\.0\.0\.7.*AET@host:port"):
        load_settings()
