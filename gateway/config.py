"""Settings: `hybridmed.toml` and the environment, the environment winning; read once, in the entry point."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.errors import ConfigurationError

CONFIG_FILE = Path("hybridmed.toml")
_AE_TITLE_LENGTH = 16
_LAST_PORT = 65535
_DICOM_DESTINATION = re.compile(r"^(?P<ae>[^@]{1,16})@(?P<host>[^:@]+):(?P<port>\d{1,5})$")


def _ae_title(value: str) -> str:
    """Return an AE title (PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash, not only spaces)."""
    title = value.strip()
    if not 1 <= len(title) <= _AE_TITLE_LENGTH or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"{value!r} is not an AE title: 1 to 16 printable ASCII characters without backslash")
    return title


AETitle = Annotated[str, AfterValidator(_ae_title)]


@dataclass(frozen=True, slots=True)
class DicomAddress:
    """A DICOM application entity on the network."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> DicomAddress:
        """Parse `AET@host:port`; ValueError says what was expected."""
        match = _DICOM_DESTINATION.match(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not AET@host:port")
        port = int(match["port"])
        if not 1 <= port <= _LAST_PORT:
            raise ValueError(f"{text!r}: a port is 1 to {_LAST_PORT}")
        return cls(_ae_title(match["ae"]), match["host"], port)

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


class Destination(BaseModel):
    """Where results go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: str
    """`AET@host:port` for C-STORE, `https://…` for STOW-RS."""
    sr_title: Literal["imaging-measurement-report", "oncology-measurement-report"] = "imaging-measurement-report"
    """(126000, DCM) or (126001, DCM): some viewers show only one of them."""
    seg_encoding: Literal["BINARY", "LABELMAP"] = "BINARY"
    """Encoding of segmentations; many peers refuse LABELMAP."""
    send: tuple[Literal["sr", "seg", "heatmap"], ...] = ("sr", "seg", "heatmap")
    """Kinds of object that this destination takes."""

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            DicomAddress.parse(value)
        return value

    @property
    def dicom(self) -> DicomAddress | None:
        """The C-STORE address, or None where results go by STOW-RS."""
        return None if self.address.startswith("http") else DicomAddress.parse(self.address)


class Match(BaseModel):
    """What a rule asks of a study; every condition given must hold, in one series at least."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calling_ae: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    description: str | None = None
    """Regular expression, searched without regard to case in study and series description."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Keyword or 'gggg,eeee' -> regular expression, searched in the first instance of the series."""

    @field_validator("calling_ae", "modality", "body_part", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("description")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            _require_expression(value)
        return value

    @field_validator("tags")
    @classmethod
    def _all_compile(cls, value: dict[str, str]) -> dict[str, str]:
        for expression in value.values():
            _require_expression(expression)
        return value


def _require_expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error


class Rule(BaseModel):
    """A routing rule; the first rule that matches decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    match: Match = Match()
    bundles: tuple[str, ...] = ()
    """Bundles to run; empty: keep the study and run nothing."""
    priority: Literal["stat", "routine"] = "routine"
    destinations: tuple[str, ...] | None = None
    """Names of destinations; None: all."""


class Settings(BaseSettings):
    """All settings, frozen; each field is `HYBRIDMED_` and its name in capitals in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="HYBRIDMED_", frozen=True, extra="forbid", use_attribute_docstrings=True, env_ignore_empty=True
    )

    data_dir: Path = Path("hybridmed-data")
    """Folder of everything kept: instances, results and, by default, the database."""
    database_url: str | None = None
    """SQLAlchemy URL; unset: SQLite in the data folder."""
    broker_url: str | None = None
    """`amqp://…`; unset: the jobs table is the queue."""
    broker_prefix: str = "hybridmed.jobs"
    """Prefix of the queue names, so that two gateways can share one broker."""
    bind: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs `auth` and `allowed_aes`."""
    dicom_port: Annotated[int, Field(ge=1, le=65535)] = 11112
    """Port of the Storage SCP."""
    ae_title: AETitle = "HYBRIDMED"
    """Our AE title; other called AE titles are refused."""
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port of FHIR, DICOMweb, worklist, health and metrics."""
    quiet_s: Annotated[float, Field(ge=0, le=86400)] = 10.0
    """Seconds without a new instance after which a study is complete, once no association carries it."""
    destinations: Annotated[tuple[Destination, ...], NoDecode] = ()
    """`PACS=AET@host:port, WEB=https://…` or TOML tables."""
    move_destinations: Annotated[tuple[DicomAddress, ...], NoDecode] = ()
    """`AET@host:port, …`: whom C-MOVE may send to and storage commitment may answer, besides `destinations`."""
    find_limit: Annotated[int, Field(ge=1)] = 10_000
    """Answers to one C-FIND; where there are more, it ends with A700 after so many."""
    allowed_aes: Annotated[tuple[AETitle, ...], NoDecode] = ()
    """Calling AE titles that may send; empty: all (loopback only)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run."""
    bundle_dir: Path | None = None
    """Folder of further bundles, besides the shipped ones; a bundle of the same name replaces the shipped one."""
    viewer_dir: Path | None = None
    """Folder of the viewer (OHIF), for a place of its own, such as one made at image build; unset: `viewer` in the
    data folder."""
    auth: Literal["none", "token"] = "none"
    """How HTTP callers prove who they are."""
    tokens: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """SHA-256 digests (hexadecimal) of the bearer tokens that `auth = "token"` takes."""
    worklist_shows: Annotated[tuple[Literal["name", "id", "birth", "accession"], ...], NoDecode] = (
        "name",
        "id",
        "birth",
        "accession",
    )
    """Which of a patient's details the worklist and the studies' pages show."""
    private_storage_classes: Annotated[tuple[str, ...], NoDecode] = ()
    """UIDs of private Storage SOP classes to accept besides the standard ones."""
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 64
    """Associations served at once; further ones are rejected as 'local limit exceeded'."""
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 20)] = 131072
    """Largest PDU we ask for."""
    association_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Time limit of negotiation and of a DIMSE message once begun."""
    idle_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Time after which a silent association is aborted."""
    reserve_mib: Annotated[int, Field(ge=0)] = 1024
    """Free disk space under which no instance is accepted (status A700)."""
    max_instance_mib: Annotated[int, Field(ge=1)] = 8192
    """Largest instance accepted."""
    lease_s: Annotated[float, Field(gt=0)] = 60.0
    """How long a worker holds a job before it must renew; renewed at a third of it."""
    workitem_lease_s: Annotated[float, Field(ge=60, le=7 * 86400)] = 3600.0
    """How long an external performer (UPS) may be silent before its workitem is offered again."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Tries of a job before it goes to the dead list."""
    retry_s: Annotated[float, Field(gt=0)] = 5.0
    """First delay before a job or delivery is tried again; doubles each time."""
    retry_limit_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest delay between tries."""
    delivery_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Time limit of each step of a delivery."""
    rules: tuple[Rule, ...] = ()
    """Routing rules; without any, the bundles' own applicability decides."""
    log_format: Literal["console", "json"] = "console"
    """How log lines look."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level logged."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; no dotenv."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=os.environ.get("HYBRIDMED_CONFIG", CONFIG_FILE))
        return init_settings, env_settings, toml

    @field_validator("allowed_aes", "private_storage_classes", "tokens", "worklist_shows", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("destinations", mode="before")
    @classmethod
    def _parse_destinations(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(_parse_destination(part) for part in value.split(",") if part.strip())
        if isinstance(value, dict):
            return tuple({"name": name, **_as_table(entry)} for name, entry in value.items())
        return value

    @field_validator("move_destinations", mode="before")
    @classmethod
    def _parse_addresses(cls, value: object) -> object:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return value
        return tuple(DicomAddress.parse(part) if isinstance(part, str) else part for part in parts)

    @field_validator("auth", mode="before")
    @classmethod
    def _is_offered(cls, value: object) -> object:
        if value == "oidc":
            raise ValueError("oidc is not offered by this version: set HYBRIDMED_AUTH=token")
        return value

    @model_validator(mode="after")
    def _names_are_known(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError(f"destinations: a name stands twice in {', '.join(names)}")
        for rule in self.rules:
            unknown = set(rule.destinations or ()) - set(names)
            if unknown:
                raise ValueError(f"rule {rule.name!r}: unknown destination {', '.join(sorted(unknown))}")
        return self

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Settings:
        if _is_loopback(self.bind):
            return self
        missing = [
            text
            for is_missing, text in (
                (self.auth == "none", "HYBRIDMED_AUTH=token"),
                (not self.allowed_aes, "HYBRIDMED_ALLOWED_AES (the calling AE titles that may send)"),
            )
            if is_missing
        ]
        if missing:
            raise ValueError(f"bind {self.bind} is open to the network: set {' and '.join(missing)}")
        return self

    @property
    def dicom_peers(self) -> dict[str, DicomAddress]:
        """AE title -> address of every peer that we may open an association to; `move_destinations` win."""
        results = [destination.dicom for destination in self.destinations]
        return {peer.ae_title: peer for peer in (*results, *self.move_destinations) if peer is not None}

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL, the embedded one by default."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'hybridmed.db'}"

    @property
    def viewer_folder(self) -> Path:
        """Where the viewer lies, the data folder's own by default."""
        return self.viewer_dir or self.data_dir / "viewer"


def _parse_destination(text: str) -> dict[str, str]:
    name, equals, address = text.strip().partition("=")
    if not equals:
        raise ValueError(f"destination {text.strip()!r} is not NAME=AET@host:port or NAME=https://…")
    return {"name": name.strip(), "address": address.strip()}


def _as_table(entry: object) -> dict[str, Any]:
    return {"address": entry} if isinstance(entry, str) else dict(entry)  # type: ignore[call-overload] # pydantic reports other types


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ConfigurationError names each field that is wrong and what was expected."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError("; ".join(lines)) from error
    except ValueError as error:
        raise ConfigurationError(f"{CONFIG_FILE}: {error}") from error
