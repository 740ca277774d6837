from fsparse.lsh._families import codes, simhash
from fsparse.lsh._index import (
    Candidates,
    Index,
    build,
    insert,
    num_bytes,
    query,
    refresh,
    remove,
)
