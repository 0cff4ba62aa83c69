"""Which strings Kubernetes takes as names, label keys and label values.

Each function returns what is wrong with the string, as texts of `k8s.io/apimachinery/pkg/util/validation`; an empty
list means it is fine.
"""

from __future__ import annotations

import re

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_QUALIFIED})?"

_IS_DNS1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?").fullmatch
_IS_LABEL = re.compile(_LABEL).fullmatch
_IS_SUBDOMAIN = re.compile(_SUBDOMAIN).fullmatch
_IS_QUALIFIED = re.compile(_QUALIFIED).fullmatch
_IS_VALUE = re.compile(_VALUE).fullmatch

_BAD_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_BAD_DNS1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_BAD_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_QUALIFIED_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_BAD_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)


def label_name(text: str) -> list[str]:
    """DNS-1123 label: the rule for namespaces."""
    mistakes = [] if len(text) <= 63 else ["must be no more than 63 characters"]
    if not _IS_LABEL(text):
        # The most likely mistake is a subdomain, and this shorter message says what to remove.
        mistakes.append("must not contain dots" if _IS_SUBDOMAIN(text) else _BAD_LABEL)
    return mistakes


def dns1035_label(text: str) -> list[str]:
    """DNS-1035 label: the rule for the names in a CRD and for its versions."""
    mistakes = [] if len(text) <= 63 else ["must be no more than 63 characters"]
    return mistakes if _IS_DNS1035(text) else [*mistakes, _BAD_DNS1035]


def subdomain(text: str) -> list[str]:
    """DNS-1123 subdomain: the rule for most names."""
    mistakes = [] if len(text) <= 253 else ["must be no more than 253 characters"]
    return mistakes if _IS_SUBDOMAIN(text) else [*mistakes, _BAD_SUBDOMAIN]


def qualified_name(text: str) -> list[str]:
    """Keys of labels and annotations, finalizers: `name` or `example.com/name`."""
    prefix, slash, name = text.partition("/")
    if not slash:
        prefix, name = "", text
    if "/" in name:
        return [
            f"a valid label key {_QUALIFIED_RULE} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    mistakes: list[str] = []
    if slash:
        mistakes += _prefix(prefix)
    if not name:
        mistakes.append("name part must be non-empty")
    elif len(name) > 63:
        mistakes.append("name part must be no more than 63 bytes")
    return mistakes if _IS_QUALIFIED(name) else [*mistakes, f"name part {_QUALIFIED_RULE}"]


def _prefix(text: str) -> list[str]:
    if not text:
        return ["prefix part must be non-empty"]
    mistakes = [] if len(text) <= 253 else ["prefix part must be no more than 253 bytes"]
    return mistakes if _IS_SUBDOMAIN(text) else [*mistakes, f"prefix part {_BAD_SUBDOMAIN}"]


def label_value(text: str) -> list[str]:
    mistakes = [] if len(text) <= 63 else ["must be no more than 63 bytes"]
    return mistakes if _IS_VALUE(text) else [*mistakes, _BAD_VALUE]
