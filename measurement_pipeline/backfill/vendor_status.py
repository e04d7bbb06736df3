"""Reads key validity and monthly counts from `GET /status`, which is free. Never raises for what the vendor does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.vendors.songstats import status
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.historic_stats import read_key_validity


@dataclass(frozen=True, slots=True)
class VendorStatus:
    """`key_works`: None if unknown. `month`: the calls that the vendor counted."""

    key_works: bool | None
    month: VendorMonth


def fetch_vendor_status(new_client: Callable[[], SongstatsClient], *, seconds: float | None = None) -> VendorStatus:
    """Call `GET /status` once; it is no hit. `seconds`: its timeout, if not that of any call."""

    async def fetch() -> VendorStatus:
        async with new_client() as client, asyncio.timeout(seconds):
            answer = await client.fetch_status()
        return VendorStatus(read_key_validity(answer), status.read_usage(answer))

    try:
        return asyncio.run(fetch())
    except TimeoutError:
        return VendorStatus(None, VendorMonth(detail=f"no answer within {seconds:g} s"))
