"""What this machine's apt is configured for: the mirror, keys and proxies of a base made from packages.

Both formats of sources.list(5) are read, the one-line one and deb822, with all their options. Settings come
from ``apt-config dump``, so that whatever apt itself obeys (proxies, certificates, ``Check-Valid-Until`` of a
snapshot) is obeyed here.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

from console import UserError

ETC_APT = Path("/etc/apt")
_ONE_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)"
)
_NO = {"no", "false", "without", "off", "disable", "0"}  # apt.conf(5): what counts as false
# What decides how a file is fetched: proxies, certificates, retries, the age and trust of an index.
_FETCHING = re.compile(
    r"Acquire::(https?|Retries|ForceIPv|Check-|Max-ValidTime|Allow|By-Hash|Queue)", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Source:
    """One suite of one archive: a line of sources.list(5).

    Attributes:
        uri: the archive's address, without a trailing slash.
        suite: for example ``bookworm-updates``.
        components: for example ``("main", "contrib")``.
        options: apt's names in lower case to values, for example ``signed-by`` to a path.
        key: the text of a key written into the source itself, instead of a ``signed-by`` path.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    key: str = ""

    def line(self, key_file: Path | None = None) -> str:
        """The same in the one-line format, with `key_file` standing in for a key written into the source."""
        options = dict(self.options)
        if key_file is not None:
            options["signed-by"] = str(key_file)
        bracket = " ".join(f"{name}={value}" for name, value in options.items())
        return " ".join(
            ["deb", *([f"[{bracket}]"] if bracket else []), self.uri, self.suite, *self.components]
        )


def read_sources(etc_apt: Path = ETC_APT) -> list[Source]:
    """Every enabled binary source of a machine, in apt's order.

    Args:
        etc_apt: the folder with ``sources.list`` and ``sources.list.d``.
    """
    sources: list[Source] = []
    lists = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    for path in lists:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            sources += parse_deb822(text)
        elif path.suffix == ".list":
            sources += parse_one_line(text)
    return sources


def parse_one_line(text: str) -> list[Source]:
    """Read the one-line format: ``deb [option=value ...] uri suite component ...``."""
    sources = []
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.split("#", 1)[0].strip())
        if match:
            options = (option.partition("=") for option in (match["options"] or "").split())
            sources.append(
                Source(
                    uri=match["uri"].rstrip("/"),
                    suite=match["suite"],
                    components=tuple(match["components"].split()),
                    options=tuple((name.lower(), value) for name, _, value in options if value),
                )
            )
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Read the deb822 format: stanzas of ``Types``, ``URIs``, ``Suites``, ``Components`` and options."""
    names = {"check-valid-until", "trusted", "signed-by", "by-hash", "check-date", "inrelease-path"}
    sources = []
    for stanza in re.split(
        r"\n\s*\n", "\n".join(row for row in text.splitlines() if not row.startswith("#"))
    ):
        fields: dict[str, str] = {}
        name = ""
        for row in stanza.splitlines():
            if row[:1] in {" ", "\t"} and name:
                fields[name] += "\n" + row.strip()
            elif ":" in row:
                name, _, value = row.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in _NO:
            continue
        signed_by = fields.get("signed-by", "")
        key = ""
        if "BEGIN PGP" in signed_by:
            # An empty line inside a field is written as a lone dot (deb822(5)).
            key = "\n".join("" if row == "." else row for row in signed_by.strip().splitlines()) + "\n"
            del fields["signed-by"]
        # Several keyrings are separated by blanks here and by commas in the one-line format.
        options = tuple((n, ",".join(v.split())) for n, v in fields.items() if n in names)
        sources += [
            Source(uri.rstrip("/"), suite, tuple(fields.get("components", "").split()), options, key)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return sources


def for_suite(sources: list[Source], own: str, wanted: str) -> list[Source]:
    """The machine's archive, with its updates and security suites, in another release.

    Args:
        sources: what the machine is configured for.
        own: the machine's release, for example ``bookworm``.
        wanted: the release to take from the same mirrors, for example ``trixie``.

    Returns:
        The component main of `wanted`, its updates and its security suite, as far as the machine has them.

    Raises:
        UserError: the machine has no source for its own release.
    """
    suites = {own: wanted, f"{own}-updates": f"{wanted}-updates", f"{own}-security": f"{wanted}-security"}
    renamed = [
        dataclasses.replace(source, suite=suites[source.suite], components=("main",))
        for source in sources
        if source.suite in suites and "main" in source.components
    ]
    if not any(source.suite == wanted for source in renamed):
        raise UserError(
            f"apt on this machine has no source for its own release '{own}'",
            f"looked in {ETC_APT}/sources.list and {ETC_APT}/sources.list.d",
            "bases can only be made from packages on Debian or Ubuntu; elsewhere: invoke build",
        )
    return list(dict.fromkeys(renamed))


def own_release(os_release: Path = Path("/etc/os-release")) -> str:
    """This machine's release name, for example ``bookworm``.

    Raises:
        UserError: this is no Debian or Ubuntu.
    """
    text = os_release.read_text() if os_release.exists() else ""
    fields = dict(part.split("=", 1) for part in shlex.split(text, comments=True) if "=" in part)
    if not fields.get("VERSION_CODENAME"):
        raise UserError(
            "this machine is no Debian or Ubuntu: it has no packages to make a base image of",
            "with a container registry in reach: invoke build",
        )
    return fields["VERSION_CODENAME"]


def settings(dump: str) -> str:
    """The lines of ``apt-config dump`` that a bootstrap on this machine has to obey.

    Args:
        dump: the output of ``apt-config dump``.

    Returns:
        apt.conf(5) lines: everything about fetching (proxies, certificates, validity), and where the machine
        keeps its credentials.
    """
    kept = [line for line in dump.splitlines() if _FETCHING.match(line) and not line.endswith(' "";')]
    kept += [f'Dir::Etc::netrc "{ETC_APT}/auth.conf";', f'Dir::Etc::netrcparts "{ETC_APT}/auth.conf.d";']
    return "\n".join(kept) + "\n"
