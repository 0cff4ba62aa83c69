"""`python -m remit.api`: writes the files that are generated from the models; with `--check` it only reports files that
differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from remit.api import crd, reference
from remit.api.definitions import FILE
from remit.reasons import reference as codes


def generated() -> dict[Path, str]:
    """Returns the content of the generated files by path, relative to the repository."""
    definitions = crd.files().items()
    return {
        **{Path("crds", name): text for name, text in definitions},
        **{Path("charts/remit/files/crds", name): text for name, text in definitions},
        Path("operator/remit/api", FILE.name): json.dumps(crd.crds(), ensure_ascii=False, separators=(",", ":")) + "\n",
        Path("docs/api-reference.md"): reference.render(),
        Path("docs/errors.md"): codes.render(),
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m remit.api [--check]\n")
        return 2
    wanted = generated()
    drifted = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if arguments:
        for path in drifted:
            sys.stderr.write(f"{path} differs from operator/remit/api and operator/remit/reasons; run `make crds`\n")
        return 1 if drifted else 0
    for path in drifted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
