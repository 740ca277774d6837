"""An HTTP endpoint for predictions: batches, limits, health; needs the extra ``serve``.

A :class:`Predictor` turns JSON examples into predictions. :func:`serve` answers

* ``POST /predict`` with ``{"examples": [{...}, ...], "k": 5}``, which gets
  ``{"predictions": [...]}``, one an example;
* ``GET /health``, which gets the counts and latencies so far.

Requests that wait while a batch is computed form the next one, so a lone request waits
for nobody, and a crowd is served in large batches.
"""

from fsparse.serve._app import App
from fsparse.serve._batcher import Batcher, Overloaded
from fsparse.serve._limits import Limits
from fsparse.serve._predictor import Predictor
from fsparse.serve._server import serve

__all__ = ["App", "Batcher", "Limits", "Overloaded", "Predictor", "serve"]
