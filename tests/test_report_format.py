"""Numbers and names as people read them."""

from __future__ import annotations

import pytest
from records import make_record, make_speed

from trilemma_bench.report import format as fmt
from trilemma_bench.report.table import tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (3.75, "3.75"), (9.996, "10.0"), (146, "146"), (999.6, "1,000"),
     (12345.6, "12,346"), (-0.5, "-0.500"), (1.234e-5, "1.23e-05")],
)  # fmt: skip
def test_figures(value, text):
    assert fmt.figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (3.2e-8, "32.0 ns"), (8.2e-6, "8.20 µs"), (9.996e-4, "1.00 ms"), (0.0021, "2.10 ms"), (1.5, "1.50 s"),
     (115, "115 s"), (120, "2.00 min"), (147_600, "41.0 h")],
)  # fmt: skip
def test_seconds(value, text):
    assert fmt.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (5.22e-3, (2.7e-3, 1.01e-2), "[2.70, 10.1]"),  # of 5.22 ms
        (9.996e-4, (9.9e-4, 1.2e-3), "[0.990, 1.20]"),  # of 1.00 ms
        (600.0, (540.0, 660.0), "[9.00, 11.0]"),  # of 10.0 min
        (9.1e-4, (7.9e-4, 1.047e-3), "[790, 1047]"),  # of 910 µs
        (1.0, (0.9999, 1.0001), ""),
    ],
)
def test_the_interval_of_a_time_has_the_unit_of_its_value(value, interval, text):
    assert fmt.seconds_interval(value, interval) == text


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (7.0212, (6.711, 7.331), ("7.02", "±0.31")),
        (7.0212, (6.5, 7.5), ("7.0", "±0.5")),
        (0.3041, (0.27, 0.34), ("0.304", "±0.035")),
        (0.30, (0.25, 0.42), ("0.30", "[0.25, 0.42]")),
        (146.4, (120, 173), ("146", "±26")),
        (12345.6, (11000, 13700), ("12,346", "±1,350")),
        (2.1, (-2.1, 6.3), ("2.1", "±4.2")),
        (0.0, (-1.0, 1.0), ("0.0", "±1.0")),
        (2e-5, (1e-5, 3e-5), ("2.00e-05", "±1.0e-05")),
        (5.0, (4.9999999, 5.0000001), ("5.00", "")),
        (1.0, (1.0, 1.0), ("1.00", "")),
        (25.0, (24.99999996, 25.0), ("25.0", "")),
        (1.1e-13, (0.0, 7.5768), ("0.0", "[0.0, 7.6]")),  # a distance of 0, but for rounding
        (998.0, (994.9, 1000.0), ("998.0", "[994.9, 1000.0]")),
    ],
)
def test_a_value_is_as_exact_as_its_interval(value, interval, shown):
    assert fmt.measured(value, interval) == shown


@pytest.mark.parametrize(
    ("value", "interval", "finest", "shown"),
    [
        (0.00077, (0.0, 0.00221), 4, ("0.0008", "[0.0000, 0.0022]")),
        (0.9999, (0.99943, 1.0), 4, ("0.9999", "[0.9994, 1.0000]")),
        (0.82, (0.77, 0.87), 4, ("0.82", "±0.05")),
        (483.3, (-16.0, 983.0), 1, ("483", "±500")),
        (9.9999, (9.999, 10.0), 1, ("10.0", "")),
        (0.0, (0.0, 9.6e-5), 4, ("0.0000", "")),
        (0.00002, (0.0, 0.00013), 4, ("0.0000", "[0.0000, 0.0001]")),
    ],
)
def test_no_more_decimals_than_can_be_counted(value, interval, finest, shown):
    assert fmt.measured(value, interval, finest) == shown


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("gan", "gan"),
        ("score-sde-ve (PC, 500 steps), 3 seeds", "score-sde-ve (PC,\n500 steps), 3 seeds"),
        ("gan (relativistic), 3 seeds", "gan (relativistic),\n3 seeds"),
        ("wgan-gp of some length", "wgan-gp of some length"),
        ("nvp, class_conditional=true", "nvp,\nclass_conditional=true"),
        ("nvp, some_class_conditional=true", "nvp, some_class_\nconditional=true"),
        ("a word_that_is_longer than two_lines_can_hold", "a word_that_is_longer\nthan two_lines_can_ …"),
        ("a b " * 20, "a b a b a b a b a b a\nb a b a b a b a b a …"),
    ],
)
def test_long_names_are_two_lines_of_about_the_same_length(text, lines):
    assert fmt.wrapped(text, 22) == lines


def test_counts_and_memory():
    assert [fmt.count(n) for n in (0, 512, 39_800, 999_999, 35_700_000)] == ["0", "512", "39.8 k", "1.00 M", "35.7 M"]
    assert [fmt.size(n) for n in (512, 2048, 3 * 2**30)] == ["512 B", "2.00 KiB", "3.00 GiB"]


def test_a_device_is_named_in_good_english():
    record = make_record(speed=make_speed(1e-3, 4, device="Intel(R) Xeon(R) Processor (1 threads)"))
    assert tables([record])[0].device == "Intel Xeon Processor (1 thread)"
