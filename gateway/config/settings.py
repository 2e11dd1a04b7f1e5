"""All settings: `hybridmed.toml` and the environment, the environment winning; read once, in the entry point."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.config.access import AccessLimits, Oidc
from gateway.config.address import AETitle, DicomAddress, is_loopback
from gateway.config.audit import Audit
from gateway.config.destination import Destination, as_table, parse_destination
from gateway.config.dicom_tls import DicomTls
from gateway.config.exchange import Exchange
from gateway.config.peers import SENDER, Peer
from gateway.config.retention import Retention
from gateway.config.rules import Rule
from gateway.config.s3 import S3
from gateway.config.site import Site
from gateway.config.tls import Tls
from gateway.config.tracing import Tracing
from gateway.errors import ConfigurationError

CONFIG_FILE = Path("hybridmed.toml")
_FOREIGN_BUNDLE = r"^[^=\s,]+(=[0-9a-f]{64})?$"


class Settings(BaseSettings):
    """All settings, frozen; each field is `HYBRIDMED_` and its name in capitals in the environment.

    A section, such as `[tls]` of the file, is a frozen model in a module of its own; its fields are
    `HYBRIDMED_TLS__CERTIFICATE` and so on.
    """

    model_config = SettingsConfigDict(
        env_prefix="HYBRIDMED_",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_ignore_empty=True,
        env_nested_delimiter="__",
    )

    data_dir: Path = Path("hybridmed-data")
    """Folder of everything kept: instances, results and, by default, the database."""
    database_url: Annotated[str | None, Field(repr=False)] = None
    """SQLAlchemy URL; unset: SQLite in the data folder."""
    broker_url: Annotated[str | None, Field(repr=False)] = None
    """`amqp://…`, or those of all nodes of a cluster, separated by commas; unset: the jobs table is the queue."""
    broker_prefix: str = "hybridmed.jobs"
    """Prefix of the queue names, so that two gateways can share one broker."""
    bind: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs `auth`, and `allowed_aes` or `[[peers]]`."""
    dicom_port: Annotated[int, Field(ge=1, le=65535)] = 11112
    """Port of the Storage SCP."""
    ae_title: AETitle = "HYBRIDMED"
    """Our AE title; other called AE titles are refused."""
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port of FHIR, DICOMweb, worklist, health and metrics."""
    web_processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Processes that share the HTTP port; 0: one for each four cores, 4 at most."""
    quiet_s: Annotated[float, Field(ge=0, le=86400)] = 10.0
    """Seconds without a new instance after which a study is complete, once no association carries it."""
    destinations: Annotated[tuple[Destination, ...], NoDecode] = ()
    """`PACS=AET@host:port, WEB=https://…` or TOML tables."""
    move_destinations: Annotated[tuple[DicomAddress, ...], NoDecode] = ()
    """`AET@host:port, …`: whom C-MOVE may send to and storage commitment may answer, besides `destinations`. To a title
    whose destination has `deidentify`, C-MOVE sends nothing."""
    find_limit: Annotated[int, Field(ge=1)] = 10_000
    """Answers to one C-FIND; where there are more, it ends with A700 after so many."""
    allowed_aes: Annotated[tuple[AETitle, ...], NoDecode] = ()
    """Calling AE titles that may send, ask for storage commitment of it, and verify (C-ECHO); query, retrieve and
    workitems need a table `[[peers]]`. Empty, and no such table: all may everything (loopback only)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run."""
    gpu_maps: Literal["float32", "float16"] = "float32"
    """How a GPU computes the maps of X-ray bundles; float16: in half the bits, recorded as CUDA graphs: less time for
    each image, and answers that differ in the third digit."""
    ahead_mib: Annotated[int, Field(ge=0)] = 1024
    """Memory in which an idle worker keeps studies that still arrive, read and prepared for their job; 0: none is."""
    jobs_together: Annotated[int, Field(ge=1, le=16)] = 1
    """Waiting jobs of one bundle for X-rays whose images a worker evaluates in one batch; 1: each job by itself. More
    gives a GPU more to do at once, and lets a STAT job wait for as many others."""
    bundle_dir: Path | None = None
    """Folder of further bundles, besides the shipped ones; a bundle of the same name replaces the shipped one."""
    foreign_bundles: Annotated[tuple[Annotated[str, Field(pattern=_FOREIGN_BUNDLE)], ...], NoDecode] = ()
    """Bundles that may bring a TorchScript, ONNX or MONAI network: `NAME`, or `NAME=DIGEST` for these very weights."""
    viewer_dir: Path | None = None
    """Folder of the viewer (OHIF), for a place of its own, such as one made at image build; unset: `viewer` in the
    data folder."""
    auth: Annotated[tuple[Literal["none", "token", "oidc"], ...], NoDecode, Field(min_length=1)] = ("none",)
    """How HTTP callers prove who they are: `none`, or `token`, `oidc` or both (`token, oidc`)."""
    tokens: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """SHA-256 digests (hexadecimal) of bearer tokens with all roles; `hybridmed tokens create` makes better ones."""
    worklist_shows: Annotated[tuple[Literal["name", "id", "birth", "accession"], ...], NoDecode] = (
        "name",
        "id",
        "birth",
        "accession",
    )
    """Which of a patient's details the worklist and the studies' pages show."""
    private_storage_classes: Annotated[tuple[str, ...], NoDecode] = ()
    """UIDs of private Storage SOP classes to accept besides the standard ones."""
    receive_processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes of the role 'receive' on this host, all on the same port; they share `max_associations`."""
    receive_path: Literal["fast", "stock"] = "fast"
    """How data sets are received: straight from the receive buffer to the file, or by pynetdicom alone."""
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 64
    """Associations served at once; further ones are rejected as 'local limit exceeded'. Connections that have not
    negotiated take no place."""
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
    job_limit_s: Annotated[float, Field(gt=0)] = 3600.0
    """Longest time for one job; a worker that takes longer hangs: it is ended, and the job tried again."""
    silence_limit_s: Annotated[float, Field(ge=5)] = 60.0
    """Longest time without a sign of life from a role's process: then it is stopped or stuck, is killed and started
    anew."""
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
    access: AccessLimits = AccessLimits()
    """How often HTTP callers may ask, and from where: the table `[access]`."""
    oidc: Oidc = Oidc()
    """The OpenID Connect provider of `auth = "oidc"`: the table `[oidc]`."""
    tls: Tls = Tls()
    """Certificate and key: the table `[tls]`."""
    s3: S3 = S3()
    """A bucket for stored files: the table `[s3]`."""
    tracing: Tracing = Tracing()
    """Where spans go: the table `[tracing]`."""
    site: Site = Site()
    """The site that results come from: the table `[site]`."""
    exchange: Exchange = Exchange()
    """FHIR with other systems: the table `[exchange]`."""
    dicom_tls: DicomTls = DicomTls()
    """DICOM over TLS: the table `[dicom_tls]`."""
    peers: tuple[Peer, ...] = ()
    """Whom we know: the tables `[[peers]]`; empty: those of `allowed_aes` alone."""
    retention: Retention = Retention()
    """What is removed, and when: the table `[retention]`."""
    audit: Audit = Audit()
    """Where the audit trail goes: the table `[audit]`."""
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
        """Environment, then a file for each secret, then the settings' file; no dotenv."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=os.environ.get("HYBRIDMED_CONFIG", CONFIG_FILE))
        folder = os.environ.get("HYBRIDMED_SECRETS_DIR")
        if folder is None or not Path(folder).is_dir():
            return init_settings, env_settings, toml
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder), toml

    @field_validator(
        "allowed_aes",
        "auth",
        "foreign_bundles",
        "private_storage_classes",
        "tokens",
        "worklist_shows",
        mode="before",
    )
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("destinations", mode="before")
    @classmethod
    def _parse_destinations(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(parse_destination(part) for part in value.split(",") if part.strip())
        if isinstance(value, dict):
            return tuple({"name": name, **as_table(entry)} for name, entry in value.items())
        return value

    @field_validator("move_destinations", mode="before")
    @classmethod
    def _parse_addresses(cls, value: object) -> object:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return value
        return tuple(DicomAddress.parse(part) if isinstance(part, str) else part for part in parts)

    @field_validator("auth")
    @classmethod
    def _is_one_or_the_other(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "none" in value and len(value) > 1:
            raise ValueError("'none' stands alone")
        return tuple(dict.fromkeys(value))

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
    def _sends_with_the_patient_or_without(self) -> Settings:
        without = {each.endpoint: each.name for each in self.destinations if each.deidentify}
        for each in self.destinations:
            if not each.deidentify and each.endpoint in without:
                named = f"{without[each.endpoint]} and {each.name}"
                raise ValueError(f"destinations: {named} are the same address, and only the first has deidentify")
        return self

    @model_validator(mode="after")
    def _knows_the_provider(self) -> Settings:
        if "oidc" in self.auth and not self.oidc.issuer:
            raise ValueError("auth = oidc needs HYBRIDMED_OIDC__ISSUER, and HYBRIDMED_OIDC__AUDIENCE or __CLIENT_ID")
        return self

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Settings:
        if is_loopback(self.bind):
            return self
        is_bare = not self.tls.is_on_http and not self.access.trusted_proxies
        missing = [
            text
            for is_missing, text in (
                (self.auth == ("none",), "HYBRIDMED_AUTH=token"),
                (
                    not self.allowed_aes and not self.peers,
                    "HYBRIDMED_ALLOWED_AES (the calling AE titles that may send)",
                ),
                (
                    is_bare,
                    "HYBRIDMED_TLS__CERTIFICATE and HYBRIDMED_TLS__KEY (or, behind a proxy that speaks TLS, "
                    "HYBRIDMED_ACCESS__TRUSTED_PROXIES: its address)",
                ),
            )
            if is_missing
        ]
        if missing:
            raise ValueError(f"bind {self.bind} is open to the network: set {'; '.join(missing)}")
        return self

    @property
    def calling_aes(self) -> tuple[str, ...]:
        """Calling AE titles that may associate; empty: all."""
        return tuple(peer.ae_title for peer in self.calling_peers)

    @property
    def calling_peers(self) -> tuple[Peer, ...]:
        """Who may associate, and what for; empty: everybody, for everything."""
        named = {peer.ae_title for peer in self.peers}
        senders = [Peer(ae_title=title, may=SENDER) for title in self.allowed_aes if title not in named]
        return (*self.peers, *senders)

    @property
    def dicom_peers(self) -> dict[str, DicomAddress]:
        """AE title -> address of every peer that we may open an association to; `move_destinations` win."""
        results = [destination.dicom for destination in self.destinations]
        return {peer.ae_title: peer for peer in (*results, *self.move_destinations) if peer is not None}

    @property
    def research_aes(self) -> frozenset[str]:
        """AE titles of destinations that get objects without the patient."""
        marked = [each.dicom for each in self.destinations if each.deidentify]
        return frozenset(address.ae_title for address in marked if address is not None)

    @property
    def identified_peers(self) -> dict[str, DicomAddress]:
        """Of `dicom_peers` those that may get what names a patient."""
        return {title: address for title, address in self.dicom_peers.items() if title not in self.research_aes}

    @property
    def web_process_count(self) -> int:
        """How many processes share the HTTP port."""
        return self.web_processes or min(4, max(1, (os.cpu_count() or 1) // 4))

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL, the embedded one by default."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'hybridmed.db'}"

    @property
    def viewer_folder(self) -> Path:
        """Where the viewer lies, the data folder's own by default."""
        return self.viewer_dir or self.data_dir / "viewer"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ConfigurationError names each field that is wrong and what was expected."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError("; ".join(lines)) from error
    except ValueError as error:
        raise ConfigurationError(f"{CONFIG_FILE}: {error}") from error
