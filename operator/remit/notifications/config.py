"""The configuration of notifications: the file that `--notifications` names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from remit.api.base import LabelSelector, SpecModel
from remit.api.duration import Duration, seconds_of
from remit.api.mistakes import first_mistake
from remit.errors import InvalidInput
from remit.notifications.alert import AlertName
from remit.regularfile import read_text
from remit.safeyaml import load_documents

_ReceiverName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
_Glob = Annotated[str, Field(pattern=r"^[-a-z0-9*?]{1,63}$")]
_File = Annotated[str, Field(pattern=r"^/", max_length=1024)]
MOST_RECEIVERS: Final = 32


class AppriseReceiver(SpecModel):
    """Chat, mail, webhooks and more than a hundred other services, each by a URL of Apprise."""

    exactly_one: ClassVar = ("urls", "urlsFile")

    urls: Annotated[list[Annotated[str, Field(min_length=1, max_length=2048)]], Field(min_length=1)] | None = None
    """Such as `slack://TOKEN_A/TOKEN_B/TOKEN_C/#ops`, `mailtos://USER:PASSWORD@example.com?to=ops@example.com` or
    `jsons://hooks.example.com/remit`."""
    urls_file: _File | None = None
    """A file with one URL a line, such as the key of a mounted Secret. Read whenever something is sent."""


class AlertmanagerReceiver(SpecModel):
    """An Alertmanager, which groups, repeats and silences by its own configuration."""

    url: Annotated[str, Field(pattern=r"^https?://[^/?#@]+(/[^?#]*)?$", max_length=2048)]
    """Its address, such as `http://alertmanager.monitoring:9093`, with its path prefix where it has one."""
    token_file: _File | None = None
    """A file with the bearer token to send."""
    ca_file: _File | None = None
    """A file with the certificates to trust instead of the system's."""


class Receiver(SpecModel):
    exactly_one: ClassVar = ("apprise", "alertmanager")

    name: _ReceiverName
    """What routes, metrics and messages call it."""
    apprise: AppriseReceiver | None = None
    """Send each group of alerts as one message."""
    alertmanager: AlertmanagerReceiver | None = None
    """Send every alert, and repeat it while it is active."""


class Route(SpecModel):
    """Alerts that match all of it go to its receivers. An alert may match several routes."""

    receivers: Annotated[list[_ReceiverName], Field(min_length=1, max_length=MOST_RECEIVERS)]
    """Names of receivers."""
    alerts: Annotated[list[AlertName], Field(default_factory=list, max_length=32)]
    """Only these; empty: all."""
    severity: Literal["critical", "warning"] | None = None
    """Only those of this severity."""
    namespaces: Annotated[list[_Glob], Field(default_factory=list, max_length=64)]
    """Only those about objects of these namespaces, in which `*` and `?` stand for any characters and any one.
    Empty: all, and those about the operator itself."""
    selector: LabelSelector = LabelSelector()
    """Only those about objects with these labels."""


class Denials(SpecModel):
    """How many denied tasks of one namespace make a burst."""

    count: Annotated[int, Field(ge=1, le=1000)] = 10
    within: Duration = "5m"


class NotificationConfig(SpecModel):
    receivers: Annotated[list[Receiver], Field(min_length=1, max_length=MOST_RECEIVERS)]
    routes: Annotated[list[Route], Field(min_length=1, max_length=64)]
    group_wait: Duration = "10s"
    """How long a first alert of a group waits for others, to be told of together. A group is the alerts of one name
    and one namespace for one receiver."""
    group_interval: Duration = "5m"
    """How long after a message the next one about the same group goes out at the earliest, with what changed."""
    repeat_interval: Duration = "4h"
    """After how long a message is repeated while its alerts are active."""
    task_failed_for: Duration = "1h"
    """How long the failure of a task, or that it was unusual, counts as an alert."""
    denials: Denials = Denials()
    most_an_hour: Annotated[int, Field(ge=1, le=10_000)] = 60
    """Messages to one receiver within an hour. What is beyond it goes out later, together. Those about the operator
    itself are not held up."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        known = [receiver.name for receiver in self.receivers]
        for name in known:
            if known.count(name) > 1:
                raise ValueError(f"two receivers are called {name!r}")
        for route in self.routes:
            for name in route.receivers:
                if name not in known:
                    raise ValueError(f"a route names the receiver {name!r}, which is not among: {', '.join(known)}")
        return self

    def seconds(self, field: Literal["group_wait", "group_interval", "repeat_interval", "task_failed_for"]) -> int:
        return seconds_of(getattr(self, field))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `InvalidInput` with the field that is wrong, and where the file cannot be read."""
        try:
            documents = load_documents(read_text(path))
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from None
        if len(documents) != 1:
            raise InvalidInput(f"{path} has {len(documents)} YAML documents; one is expected")
        try:
            return cls.model_validate(documents[0])
        except ValidationError as error:
            field, message = first_mistake(error, cls)
            raise InvalidInput(f"{message} (in {path})", field=field) from None
