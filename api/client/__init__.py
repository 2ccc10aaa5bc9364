"""Callers of a running app: `AsyncClient`, and `Client` for programs without asyncio.

blocking.py -> aio.py, which numbers nothing itself: a session does (`skerry.host.Session`)
batch.py       many requests that are waited for together
requests.py    what a caller names and sends; outcomes.py: what comes back
"""

from skerry.client.aio import AsyncClient
from skerry.client.blocking import Client

__all__ = ["AsyncClient", "Client"]
