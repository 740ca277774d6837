"""The server: uvicorn, with limits on what comes before a request's body."""

import asyncio
from typing import Any

from fsparse.serve._app import App
from fsparse.serve._limits import Limits
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
      SystemExit: if the port is taken.

    Example:
      >>> from fsparse.pipeline import TablePredictor
      >>> predictor = TablePredictor(pipeline, "mugs")  # doctest: +SKIP
      >>> serve(predictor, port=8000)  # doctest: +SKIP
    """
    asyncio.run(make_server(predictor, host, port, limits or Limits()).serve())


def make_server(predictor: Predictor, host: str, port: int, limits: Limits) -> Any:
    """A uvicorn server that was not started."""
    try:
        import uvicorn

        from fsparse.serve._protocol import protocol
    except ImportError as e:
        raise ImportError(
            f"serve: it needs uvicorn and httptools ({e}). pip install 'fsparse[serve]'"
        ) from e
    config = uvicorn.Config(
        App(predictor, limits),
        host=host,
        port=port,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=round(limits.idle_seconds) or 1,
        timeout_graceful_shutdown=round(limits.answer_seconds) or 1,
    )
    return uvicorn.Server(config)
