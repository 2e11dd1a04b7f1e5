"""The language of a page: chosen by a cookie, else by the browser; texts come from one catalogue per language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from gateway.web import texts_en, texts_zh

COOKIE: Final = "hybridmed_language"
_MOST_RANGES = 20


@dataclass(frozen=True, slots=True)
class Language:
    """A language with its texts."""

    code: str
    """'en', 'zh': in addresses and cookies."""
    tag: str
    """BCP 47, for `<html lang>`."""
    own_name: str
    texts: Mapping[str, str]
    terms: Mapping[str, str]
    """Code meanings, class names, units and sentences that come with results, in lower case -> this language."""

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of a key with its values in place; KeyError: a text is missing, which a test finds."""
        text = self.texts[key]
        return text.format(**values) if values else text

    def term(self, words: str) -> str:
        """Return a term that came with a result in this language; as it stands where it is not known."""
        return self.terms.get(words.lower(), words)

    def counted(self, key: str, number: int) -> str:
        """Return the text of `key.one` or `key.other`, with the number in it as `n`."""
        return self(f"{key}.one" if number == 1 else f"{key}.other", n=number)

    def known(self, key: str, otherwise: str) -> str:
        """Return the text of a key that came from data, or what to say where there is none."""
        return self.texts.get(key, otherwise)


LANGUAGES: Final[Mapping[str, Language]] = {
    "en": Language("en", "en", "English", texts_en.TEXTS, texts_en.TERMS),
    "zh": Language("zh", "zh-Hans", "中文", texts_zh.TEXTS, texts_zh.TERMS),
}
DEFAULT: Final = "en"


def choose_language(request: Request) -> Language:
    """Return the language of the cookie or else the one that the browser likes best (RFC 9110 12.5.4)."""
    chosen = LANGUAGES.get(request.cookies.get(COOKIE, ""))
    return chosen if chosen is not None else _preferred(request.headers.get("accept-language", ""))


def _preferred(accept_language: str) -> Language:
    liked: list[tuple[float, int, str]] = []
    for position, part in enumerate(accept_language.split(",")[:_MOST_RANGES]):
        tag, _, parameter = part.partition(";")
        code = tag.strip().lower().partition("-")[0]
        weight = _weight(parameter)
        if code in LANGUAGES and weight > 0:
            liked.append((-weight, position, code))
    return LANGUAGES[min(liked)[2] if liked else DEFAULT]


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
