"""Asks the vendor what it counted this month: `GET /status`, which is free. Never raises for what the vendor does."""

import asyncio
from collections.abc import Callable

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.songstats import status
from measurement_pipeline.songstats.client import SongstatsClient


def ask(new_client: Callable[[], SongstatsClient]) -> VendorMonth:
    """One question, one answer; no hit."""

    async def go() -> VendorMonth:
        async with new_client() as client:
            return status.read(await client.fetch_status())

    return asyncio.run(go())
