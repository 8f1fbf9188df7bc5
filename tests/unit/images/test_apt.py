"""Reading what apt is configured for."""

from __future__ import annotations

from pathlib import Path

import pytest

from console import UserError
from images import apt
from images.apt import Source

ONE_LINE = """\
# the archive
deb http://mirror.example/debian/ bookworm main contrib # trailing
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg check-valid-until=no] http://m.ex/d bookworm-updates main
deb-src http://mirror.example/debian bookworm main
#deb http://mirror.example/debian bookworm-backports main
"""

DEB822 = """\
# comment
Types: deb deb-src
# comment inside a stanza
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/a.gpg /usr/share/keyrings/b.gpg
Check-Valid-Until: no

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://security.example/debian-security/
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_the_one_line_format_is_read_with_its_options() -> None:
    assert apt.parse_one_line(ONE_LINE) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source(
            "http://m.ex/d",
            "bookworm-updates",
            ("main",),
            (("arch", "amd64"), ("signed-by", "/usr/share/keyrings/a.gpg"), ("check-valid-until", "no")),
        ),
    ]


def test_the_deb822_format_is_read_with_several_suites_and_without_what_is_disabled() -> None:
    first, second, third = apt.parse_deb822(DEB822)
    assert (first.suite, second.suite) == ("bookworm", "bookworm-updates")
    assert dict(first.options) == {
        "signed-by": "/usr/share/keyrings/a.gpg,/usr/share/keyrings/b.gpg",
        "check-valid-until": "no",
    }
    assert third.uri == "http://security.example/debian-security"
    assert third.options == ()


def test_a_key_written_into_a_source_is_handed_over_as_a_file() -> None:
    source = apt.parse_deb822(DEB822)[-1]
    assert source.key == "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
    assert source.line(Path("/tmp/key.asc")) == (  # noqa: S108
        "deb [signed-by=/tmp/key.asc] http://security.example/debian-security bookworm-security main"
    )


def test_a_source_is_written_as_it_was_read() -> None:
    for source in apt.parse_one_line(ONE_LINE):
        assert apt.parse_one_line(source.line()) == [source]


def test_both_places_of_sources_are_read_and_disabled_files_are_not(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (parts / "debian.sources").write_text(DEB822)
    (parts / "b.list").write_text("deb http://b.example/debian bookworm main\n")
    (parts / "c.list.disabled").write_text("deb http://c.example/debian bookworm main\n")
    hosts = [source.uri.split("/")[2] for source in apt.read_sources(tmp_path)]
    assert hosts == ["a.example", "b.example", "mirror.example", "mirror.example", "security.example"]


def test_another_release_is_taken_from_the_same_mirrors_with_updates_and_security() -> None:
    sources = [*apt.parse_deb822(DEB822), *apt.parse_one_line("deb http://x.example/node nodistro main")]
    lines = [source.line() for source in apt.for_suite(sources, "bookworm", "trixie")]
    assert [line.split()[-2] for line in lines] == ["trixie", "trixie-updates", "trixie-security"]
    assert all(line.endswith(" main") for line in lines)


def test_a_machine_without_its_own_archive_is_told_so() -> None:
    with pytest.raises(UserError, match="no source for its own release 'bookworm'"):
        apt.for_suite([Source("http://a.example", "sid", ("main",))], "bookworm", "trixie")


def test_proxies_certificates_and_validity_are_passed_on_and_the_rest_is_not() -> None:
    kept = [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CAInfo "/etc/ssl/company.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]
    dropped = ['Acquire::http "";', 'APT::Architecture "amd64";', 'Acquire::Languages:: "none";', 'Dir "/";']
    settings = apt.settings("\n".join([*kept, *dropped]))
    assert settings.splitlines()[:3] == kept
    assert not any(line in settings for line in dropped)
    assert "auth.conf.d" in settings


def test_a_machine_that_is_no_debian_is_told_so(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=fedora\nPRETTY_NAME="Fedora 44"\n')
    with pytest.raises(UserError, match="no Debian or Ubuntu"):
        apt.own_release(release)
    release.write_text('PRETTY_NAME="Debian GNU/Linux 12"\nVERSION_CODENAME=bookworm\n')
    assert apt.own_release(release) == "bookworm"
