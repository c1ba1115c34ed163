# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which configuration files are read, in which order."""

from __future__ import annotations

from oomslice.settings.locate import DIRECTORIES, configuration_order, masked_files

ETC, RUN, LOCAL, LIB = "/etc/oomslice", "/run/oomslice", "/usr/local/lib/oomslice", "/usr/lib/oomslice"
D = "/oomslice.yaml.d"


def test_nothing_anywhere_is_nothing_to_read() -> None:
    assert configuration_order({}) == []
    assert configuration_order({ETC: [], LIB + D: []}) == []


def test_the_shipped_file_is_read_when_it_is_alone() -> None:
    assert configuration_order({LIB: ["oomslice.yaml", "oomslice-core"]}) == [f"{LIB}/oomslice.yaml"]


def test_the_strongest_main_file_replaces_the_others() -> None:
    listing = {LIB: ["oomslice.yaml"], LOCAL: ["oomslice.yaml"], RUN: ["oomslice.yaml"], ETC: ["oomslice.yaml"]}
    for strongest in (ETC, RUN, LOCAL, LIB):
        assert configuration_order(listing) == [f"{strongest}/oomslice.yaml"]
        del listing[strongest]


def test_drop_ins_come_after_the_main_file_sorted_by_name_over_all_directories() -> None:
    listing = {
        LIB: ["oomslice.yaml"],
        LIB + D: ["50-c.yaml", "10-a.yaml"],
        LOCAL + D: ["60-d.yaml"],
        RUN + D: ["20-b.yaml"],
        ETC + D: ["99-e.yaml", "05-z.yaml"],
    }
    assert configuration_order(listing) == [
        f"{LIB}/oomslice.yaml",
        f"{ETC}{D}/05-z.yaml",
        f"{LIB}{D}/10-a.yaml",
        f"{RUN}{D}/20-b.yaml",
        f"{LIB}{D}/50-c.yaml",
        f"{LOCAL}{D}/60-d.yaml",
        f"{ETC}{D}/99-e.yaml",
    ]


def test_a_drop_in_in_etc_replaces_the_one_of_that_name_elsewhere() -> None:
    listing = {LIB + D: ["50-a.yaml"], RUN + D: ["50-a.yaml"], ETC + D: ["50-a.yaml"]}
    assert configuration_order(listing) == [f"{ETC}{D}/50-a.yaml"]
    assert masked_files(listing) == [
        (f"{RUN}{D}/50-a.yaml", f"{ETC}{D}/50-a.yaml"),
        (f"{LIB}{D}/50-a.yaml", f"{ETC}{D}/50-a.yaml"),
    ]


def test_a_replaced_main_file_is_known_as_masked() -> None:
    listing = {ETC: ["oomslice.yaml"], LIB: ["oomslice.yaml"]}
    assert masked_files(listing) == [(f"{LIB}/oomslice.yaml", f"{ETC}/oomslice.yaml")]


def test_other_names_are_passed_over() -> None:
    names = ["a.yml", "b.yaml~", ".hidden.yaml", ".yaml", "c.conf", "README", "d.yaml.dpkg-new", "ok.yaml"]
    assert configuration_order({ETC + D: names}) == [f"{ETC}{D}/ok.yaml"]


def test_names_are_sorted_by_bytes() -> None:
    names = ["a.yaml", "B.yaml", "é.yaml", "10.yaml", "9.yaml", "\udcff.yaml"]
    found = [path.rpartition("/")[2] for path in configuration_order({ETC + D: names})]
    assert found == ["10.yaml", "9.yaml", "B.yaml", "a.yaml", "é.yaml", "\udcff.yaml"]


def test_every_directory_is_asked_for_and_the_order_of_a_listing_is_of_no_effect() -> None:
    listing = {directory: ["oomslice.yaml", "x.yaml"] for directory in DIRECTORIES}
    backwards = dict(reversed(listing.items()))
    assert configuration_order(listing) == configuration_order(backwards)
    assert len(DIRECTORIES) == 8
    assert configuration_order(listing) == [f"{ETC}/oomslice.yaml", f"{ETC}{D}/oomslice.yaml", f"{ETC}{D}/x.yaml"]
