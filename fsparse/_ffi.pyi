"""Types of the compiled module (ffi/module.cc)."""

cpu_level: str
api_version: tuple[int, int]

def registrations() -> dict[str, object]: ...
