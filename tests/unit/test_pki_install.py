"""Certificates for libvirt and QEMU: the usages they ask for, the places and modes, nothing of others overwritten."""

import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from vmnet import pki, pki_install, pki_revoked
from vmnet.cli.pki import pki as command
from vmnet.errors import ConfigError, NotFoundError, RefusedError
from vmnet.pki_install import LIBVIRT, QEMU

SERVER_KEY = "etc/pki/libvirt/private/serverkey.pem"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.init(tmp_path / "pki")
    pki.host("a", tmp_path / "pki", ["10.0.0.1"])
    return tmp_path / "pki/a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def weaken(folder: Path, *, purposes: bool = False, expired: bool = False) -> None:
    """Replace the certificate in ``folder`` by one as older versions made it: for signatures only."""
    ca, key = pki.load_ca(folder.parent)
    old = pki.load_certificate(folder / "host.pem")
    start = datetime.now(UTC) - timedelta(days=10)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(ca.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1 if expired else 20))
    )
    if not expired:
        builder = builder.add_extension(pki._usage("digital_signature"), critical=True)
    if purposes:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
    (folder / "host.pem").write_bytes(pki._pem(builder.sign(key, hashes.SHA256())))


def test_openssl_takes_the_certificate_for_both_ends_by_name_and_address(folder: Path) -> None:
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "ca.pem")]
    for purpose in ("sslserver", "sslclient"):
        for name in (("-verify_hostname", "a"), ("-verify_ip", "10.0.0.1")):
            subprocess.run([*verify, "-purpose", purpose, *name, str(folder / "host.pem")], check=True)
    wrong = subprocess.run([*verify, "-verify_ip", "10.0.0.2", str(folder / "host.pem")], capture_output=True)
    assert wrong.returncode != 0
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "keyUsage", "-in", str(folder / "host.pem")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "Digital Signature, Key Encipherment" in text


def test_files_lie_where_libvirt_looks_with_private_keys(folder: Path, root: Path) -> None:
    placed = pki_install.place(folder, LIBVIRT, root)
    assert {str(one.path.relative_to(root)) for one in placed} == {
        "etc/pki/CA/cacert.pem",
        "etc/pki/libvirt/servercert.pem",
        "etc/pki/libvirt/clientcert.pem",
        SERVER_KEY,
        "etc/pki/libvirt/private/clientkey.pem",
    }
    for target in LIBVIRT:
        file = root / target.path
        assert file.read_bytes() == (folder / target.source).read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == (0o600 if "private" in target.path else 0o644)
    assert stat.S_IMODE((root / "etc/pki/libvirt/private").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "etc/pki/libvirt").stat().st_mode) == 0o755
    assert {one.action for one in placed} == {"installed"}
    assert {one.action for one in pki_install.place(folder, LIBVIRT, root)} == {"unchanged"}


def test_a_renewed_certificate_replaces_the_one_of_an_earlier_run(folder: Path, root: Path) -> None:
    pki_install.place(folder, LIBVIRT, root)
    pki.host("a", folder.parent, force=True)
    placed = {one.path.name: one.action for one in pki_install.place(folder, LIBVIRT, root)}
    assert placed["cacert.pem"] == "unchanged" and placed["servercert.pem"] == "replaced"
    assert (root / SERVER_KEY).read_bytes() == (folder / "host.key").read_bytes()


@pytest.mark.parametrize("foreign", [target.path for target in LIBVIRT])
def test_a_file_of_somebody_else_stops_all_before_anything_is_written(
    folder: Path, root: Path, foreign: str
) -> None:
    (root / foreign).parent.mkdir(parents=True)
    (root / foreign).write_text("somebody else's")
    with pytest.raises(RefusedError, match=f"{foreign} exists, and vmnet did not create it; .*--force"):
        pki_install.place(folder, LIBVIRT, root)
    assert [one for one in root.rglob("*") if one.is_file()] == [root / foreign]
    pki_install.place(folder, LIBVIRT, root, force=True)
    assert (root / foreign).read_text() != "somebody else's"


def test_an_older_certificate_is_refused_with_what_it_lacks(folder: Path, root: Path) -> None:
    weaken(folder)
    with pytest.raises(
        RefusedError, match=r"does not permit key encipherment: libvirt refuses it; .*--force"
    ):
        pki_install.place(folder, LIBVIRT, root)
    weaken(folder, purposes=True)
    with pytest.raises(RefusedError, match="key encipherment and server authentication"):
        pki_install.place(folder, LIBVIRT, root)
    assert not list(root.iterdir())
    shown = CliRunner().invoke(command, ["show", str(folder)], catch_exceptions=False).output
    assert "does not permit key encipherment and server authentication, which libvirt needs" in shown
    pki.host("a", folder.parent, force=True)
    assert "permit" not in CliRunner().invoke(command, ["show", str(folder)], catch_exceptions=False).output


def test_damaged_and_mixed_folders_are_refused(folder: Path, root: Path, tmp_path: Path) -> None:
    pki.host("b", tmp_path / "pki")
    pki.init(tmp_path / "other")
    pki.host("a", tmp_path / "other")
    key = (folder / "host.key").read_bytes()
    shutil.copy(tmp_path / "pki/b/host.key", folder / "host.key")
    with pytest.raises(ConfigError, match=r"host\.key does not belong to"):
        pki_install.place(folder, LIBVIRT, root)
    (folder / "host.key").write_bytes(key)
    shutil.copy(tmp_path / "other/ca.pem", folder / "ca.pem")
    with pytest.raises(ConfigError, match=r"host\.pem is not of the CA"):
        pki_install.place(folder, LIBVIRT, root)
    (folder / "ca.pem").unlink()
    with pytest.raises(NotFoundError, match=r"ca\.pem does not exist"):
        pki_install.place(folder, LIBVIRT, root)
    assert not list(root.iterdir())


def test_an_expired_certificate_is_refused(folder: Path, root: Path) -> None:
    weaken(folder, expired=True)
    with pytest.raises(ConfigError, match=r"expired \d{4}-\d\d-\d\d; renew it"):
        pki_install.place(folder, LIBVIRT, root)


@pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
def test_qemu_reads_its_key_by_its_group(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, os.getgid()))
    targets = tuple(
        pki_install.Target(one.source, one.path, one.mode, group.gr_name if one.mode == 0o640 else "root")
        for one in QEMU
    )
    pki_install.place(folder, targets, root)
    key = (root / "etc/pki/qemu/server-key.pem").stat()
    assert (stat.S_IMODE(key.st_mode), key.st_uid, key.st_gid) == (0o640, 0, group.gr_gid)
    nobody = tuple(pki_install.Target(one.source, one.path, one.mode, "no-such-group") for one in QEMU)
    pki_install.place(folder, nobody, root)
    assert stat.S_IMODE((root / "etc/pki/qemu/server-key.pem").stat().st_mode) == 0o600


def test_qemu_does_not_get_a_certificate_that_opens_libvirt(folder: Path, root: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    to = ["--root", str(root)]
    assert run(command, ["libvirt", str(folder), *to], catch_exceptions=False).output.count("installed") == 5
    refused = run(command, ["qemu", str(folder), *to])
    assert isinstance(refused.exception, RefusedError) and "create a CA for QEMU alone" in str(
        refused.exception
    )
    assert not (root / "etc/pki/qemu").exists()
    pki.init(tmp_path / "qemu")
    pki.host("a", tmp_path / "qemu", ["10.0.0.1"])
    run(command, ["qemu", str(tmp_path / "qemu/a"), *to], catch_exceptions=False)
    assert (root / "etc/pki/qemu/ca-cert.pem").read_bytes() == (tmp_path / "qemu/ca.pem").read_bytes()


def test_the_list_of_revoked_certificates_goes_where_libvirt_looks(folder: Path, root: Path) -> None:
    pki.host("b", folder.parent)
    for name in ("b", "a"):  # a later list replaces the earlier one
        shutil.copy(pki_revoked.revoke(name, folder.parent), folder)
        pki_install.place(folder, LIBVIRT, root)
        assert (root / "etc/pki/CA/cacrl.pem").read_bytes() == (folder / "crl.pem").read_bytes()
    (root / "etc/pki/CA/cacrl.pem").write_text("somebody else's")
    with pytest.raises(RefusedError, match=r"cacrl.pem exists, and vmnet did not create it"):
        pki_install.place(folder, LIBVIRT, root)
    (folder / "crl.pem").write_text("damaged")
    with pytest.raises(ConfigError, match="is no list of revoked certificates"):
        pki_install.place(folder, LIBVIRT, root, force=True)
    assert not (root / "etc/pki/qemu").exists()
