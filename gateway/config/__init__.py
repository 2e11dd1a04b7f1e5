"""Settings, read once in the entry point; parts take the values they need.

settings.py     Settings, load_settings
s3.py           a bucket for stored files; tracing.py  where spans go
address.py      AE titles and DICOM addresses; destination.py  where results go; rules.py  which bundles a study gets
exchange.py     FHIR with other systems
site.py         public address and institution
peers.py        whom we know; dicom_tls.py  DICOM over TLS
audit.py        where the audit trail goes; retention.py  what is removed
access.py       limits of HTTP callers, the OpenID Connect provider; tls.py  certificate and key
"""

from gateway.config.address import AETitle, DicomAddress
from gateway.config.destination import Destination
from gateway.config.rules import Match, Rule
from gateway.config.settings import CONFIG_FILE, Settings, load_settings

__all__ = ["CONFIG_FILE", "AETitle", "Destination", "DicomAddress", "Match", "Rule", "Settings", "load_settings"]
