"""The server: uvicorn, with limits on what comes before a request's body."""

import asyncio
import sys
from typing import Any

from fsparse.serve._app import App
from fsparse.serve._limits import Limits
from fsparse.serve._listen import listen
from fsparse.serve._predictor import Predictor


def serve(
    predictor: Predictor,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
) -> None:
    """Answers until it is interrupted, which lets requests under way finish.

    Args:
      predictor: the model.
      host: of the interface to listen on; ``"0.0.0.0"`` for all.
      port: to listen on; 0 takes a free one, which is printed.
      limits: what is refused.

    Raises:
      ImportError: without the extra ``serve`` (uvicorn and httptools).
      OSError: if the host is not known, or the port is taken or not allowed.

    Example:
      >>> from fsparse.pipeline import TablePredictor
      >>> predictor = TablePredictor(pipeline, "mugs")  # doctest: +SKIP
      >>> serve(predictor, port=8000)  # doctest: +SKIP
    """
    server = make_server(predictor, limits or Limits())
    sockets = listen(host, port)
    for each in sockets:
        address, number = each.getsockname()[:2]
        at = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
        print(f"serving {predictor.name} at http://{at}", file=sys.stderr)
    asyncio.run(server.serve(sockets=sockets))


def make_server(predictor: Predictor, limits: Limits) -> Any:
    """A uvicorn server that was not started, for sockets that listen."""
    try:
        import uvicorn

        from fsparse.serve._protocol import protocol
    except ImportError as e:
        raise ImportError(
            f"serve: it needs uvicorn and httptools ({e}). pip install 'fsparse[serve]'"
        ) from e
    config = uvicorn.Config(
        App(predictor, limits),
        http=protocol(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        log_level="error",
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=round(limits.idle_seconds) or 1,
        timeout_graceful_shutdown=round(limits.answer_seconds) or 1,
    )
    return uvicorn.Server(config)
