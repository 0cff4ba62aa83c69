"""The group and the version of Remit's kinds."""

from typing import Final

GROUP: Final = "remit.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "remit.dev/v1alpha1"
