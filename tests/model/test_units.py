from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmhost.model import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 << 30),
        ("4g", 4 << 30),
        ("4GiB", 4 << 30),
        ("4GB", 4_000_000_000),
        ("1.5G", 3 << 29),
        ("512M", 512 << 20),
        (" 2 T ", 2 << 40),
        ("700", 700),
        (700, 700),
        ("700B", 700),
        ("1P", 1 << 50),
    ],
)
def test_sizes_are_read_as_virsh_reads_them(text: str | int, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "-4G", "4Gi", "4X", "G", "1e3", "4G4", "0.1B", "9" * 400, "1" * 400 + ".5G", "2048P", True]
)
def test_other_sizes_are_refused(text: str | int) -> None:
    with pytest.raises(ValueError):
        units.parse_size(text)


@given(st.integers(1, units.LARGEST_SIZE))
def test_a_formatted_size_is_close_and_short(size: int) -> None:
    text = units.format_size(size)
    assert len(text) <= 8
    assert abs(units.parse_size(text) - size) <= size * 0.06


@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        answer: int | str = units.parse_size(text)
    except ValueError as error:
        answer = str(error)
    assert answer.isprintable() if isinstance(answer, str) else answer > 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (90, 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), (0.5, 0.5)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "25h", "5 min", "-1s", "nan", float("inf"), True])
def test_other_durations_are_refused(text: str | float) -> None:
    with pytest.raises(ValueError):
        units.parse_duration(text)


@pytest.mark.parametrize("name", ["a", "web-01", "A.b_c-9", "0", "x" * 63])
def test_names(name: str) -> None:
    assert units.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-rf",
        "_a",
        "a b",
        "a/b",
        "a\n",
        "\na",
        "a\0",
        "x" * 64,
        "é",
        "a;b",
        "$(id)",
        "{{a}}",
        "<a>",
        "a\u202eb",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name") as caught:
        units.check_name(name)
    assert str(caught.value).isprintable()


@given(st.text(max_size=80))
def test_a_name_is_never_a_way_out_of_a_directory(text: str) -> None:
    try:
        name = units.check_name(text)
    except ValueError:
        return
    assert "/" not in name
    assert name not in (".", "..")
    assert name.isascii()
    assert name.isprintable()


@pytest.mark.parametrize(("name", "label"), [("web-01", "web-01"), ("a.b_c", "a-b-c"), ("A", "A")])
def test_host_names(name: str, label: str) -> None:
    assert units.hostname_of(name) == label


@pytest.mark.parametrize("name", ["a-", "a.", "a_"])
def test_names_that_are_no_host_names(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a host name"):
        units.hostname_of(name)


@pytest.mark.parametrize("text", ["52:54:00:AB:cd:ef", "52-54-00-ab-cd-ef"])
def test_macs_have_one_form(text: str) -> None:
    assert units.parse_mac(text) == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    "text", ["01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "52:54:00:ab:cd", "5254.00ab.cdef", ""]
)
def test_other_macs_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_mac(text)


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,^2,8", {0, 1, 3, 8}), ("5", {5}), ("0-0", {0}), ("0-7,^0-3", {4, 5, 6, 7})]
)
def test_cpu_sets(text: str, cpus: set[int]) -> None:
    assert units.parse_cpuset(text) == cpus


@pytest.mark.parametrize("text", ["", "3-1", "a", "0-99999", "1,,2", "-1"])
def test_other_cpu_sets_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_cpuset(text)


@pytest.mark.parametrize("vid", [1, 100, 4094])
def test_vids(vid: int) -> None:
    assert units.parse_vid(vid) == vid


@pytest.mark.parametrize("vid", [0, 4095, 4096, -1, True])
def test_other_vids_are_refused_with_the_rule(vid: int) -> None:
    with pytest.raises(ValueError, match=r"802\.1Q"):
        units.parse_vid(vid)


def test_a_vid_range_beyond_802_1q_is_refused_with_the_rule() -> None:
    assert units.parse_vid_range("1000 - 1999") == (1000, 1999)
    with pytest.raises(ValueError, match=r"IEEE 802\.1Q has 12 bits for the id, .* 1 to 4094"):
        units.parse_vid_range("4096-8192")
    with pytest.raises(ValueError, match="1 to 4094"):
        units.parse_vid_range("0-10")
    with pytest.raises(ValueError, match="reversed"):
        units.parse_vid_range("20-10")
    with pytest.raises(ValueError, match="not a range"):
        units.parse_vid_range("20")


def test_addresses() -> None:
    assert units.parse_ip("FD00::0001") == "fd00::1"
    assert units.parse_subnet("10.0.0.0/255.255.255.0") == "10.0.0.0/24"
    assert units.parse_interface("10.0.0.1/24") == "10.0.0.1/24"
    assert units.parse_interface("10.0.0.0/31") == "10.0.0.0/31"


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.1/24", "fe80::1%eth0", "::ffff:1.2.3", ""])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_ip(text)


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "x/24"])
def test_other_subnets_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_subnet(text)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/24", "10.0.0.255/24", "x"])
def test_other_interfaces_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_interface(text)


@given(st.ip_addresses())
def test_an_address_in_its_usual_form_stays(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert units.parse_ip(str(address)) == str(address)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text()), st.booleans()))
def test_what_is_shown_is_short_and_safe(value: object) -> None:
    text = units.shown(value)
    assert text.isprintable()
    assert len(text) <= 10 * units.SHOWN + 5


def test_what_is_shown_is_as_a_person_would_write_it() -> None:
    assert units.shown(True) == "true"
    assert units.shown(None) == "nothing"
    assert units.shown("\x1b[31m\u202e") == r"'\x1b[31m\u202e'"
    assert units.shown({"a": 1}) == "a mapping"
    assert units.shown("x" * 300) == repr("x" * 60 + "...")


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10Mbit", 10_000_000), ("2.5Gbit", 2_500_000_000), ("500 kbit/s", 500_000), ("64kbit", 64_000)],
)
def test_rates(text: str, bits: int) -> None:
    assert units.parse_rate(text) == bits
    assert units.parse_rate(units.format_rate(bits)) == bits


def test_a_rate_is_written_back_exactly() -> None:
    for bits in (64_000, 1_234_567, 999_999_999, 1_000_000_000_000, 1_500_000):
        assert units.parse_rate(units.format_rate(bits)) == bits
    assert [units.format_rate(bits) for bits in (0, 1_500_000, 10**9)] == ["no limit", "1.5Mbit", "1Gbit"]


@pytest.mark.parametrize("text", ["10M", "10", "10Mbyte", "0Mbit", "1kbit", "2000Gbit", "-1Mbit", "Mbit", "", "1e3Mb"])
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="a rate"):
        units.parse_rate(text)
