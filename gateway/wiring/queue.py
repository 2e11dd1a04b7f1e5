"""The broker of the settings."""

from __future__ import annotations

from gateway.broker import Broker, EmbeddedBroker
from gateway.config import Settings
from gateway.rabbitmq import RabbitBroker
from gateway.store import Store
from gateway.wiring import open_settings_store


def build_broker(settings: Settings, store: Store) -> Broker:
    """Return the RabbitMQ broker where one is set, the embedded one otherwise; nothing connects yet."""
    if settings.broker_url is None:
        return EmbeddedBroker(store)
    return RabbitBroker(settings.broker_url, settings.broker_prefix)


def check_broker(settings: Settings) -> str:
    """Connect to the broker and say what waits there; BrokerAwayError where it does not answer."""
    store = open_settings_store(settings)
    broker = build_broker(settings, store)
    try:
        return f"RabbitMQ answers, {broker.waiting()} messages wait"
    finally:
        broker.close()
        store.close()
