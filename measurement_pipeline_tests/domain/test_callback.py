"""Callback addresses, signatures and waits."""

import hmac
from hashlib import sha256
from ipaddress import ip_address

import pytest

from measurement_pipeline.domain.callback import (
    account_secret,
    is_callback_url,
    is_public,
    seconds_until_retry,
    sign,
)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://client.example.com", True),
        ("https://client.example.com:8443/done?token=1", True),
        ("http://127.0.0.1:8000/done", True),  # sent to by a sandbox only
        ("http://client.example.com/", False),
        ("http://localhost/", False),
        ("https://me:password@client.example.com/", False),
        ("https://client.example.com/#part", False),
        ("https:///done", False),
        ("https://client.example.com\\@127.0.0.1/", False),
        ("https://client.example.com:99999/", False),
        ("https://client.example.com/a b", False),
        ("https://client.example.com/\r\nx: y", False),
        ("https://client.example.com/" + "a" * 2048, False),
        ("ftp://client.example.com/", False),
        (5, False),
        ("", False),
    ],
)
def test_a_callback_goes_to_an_https_address_without_a_login(url: object, *, allowed: bool):
    assert is_callback_url(url) is allowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1", "2002:a00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_inside_a_network_are_not_public(address: str):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::93.184.215.14"]
)
def test_addresses_of_the_internet_are_public(address: str):
    assert is_public(ip_address(address))


def test_a_receiver_verifies_a_signature_with_the_secret_of_its_account_alone():
    key = account_secret("a secret of 32 characters, or so", "account-1")
    assert key != account_secret("a secret of 32 characters, or so", "account-2")
    time, digest = sign(b'{"a":1}', key=key, timestamp=1_800_000_000).split(",")
    assert time == "t=1800000000"
    assert digest == "v1=" + hmac.new(key.encode(), b'1800000000.{"a":1}', sha256).hexdigest()


def test_waits_grow_from_a_minute_to_six_hours():
    assert [seconds_until_retry(attempts) for attempts in (1, 2, 3, 20)] == [60, 120, 240, 21_600]
