"""KoboldCpp's settings files (`.kcpps`, `.kcppt`): JSON objects whose keys are KoboldCpp's flags.

KoboldCpp writes every key, its defaults included, so a value that is its default leaves NKAT's own
default in force. NKAT's settings that KoboldCpp has no key for stand beside the others with the prefix
`nkat_`, which KoboldCpp reads over.
"""

import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import ConfigError
from server.kobold_flags import CACHE_TYPES, IGNORED_KEYS, chosen_gpu, is_neutral

OWN_PREFIX = "nkat_"
UNKNOWN = "not known to NKAT"
DEFAULT_PORT = 5001
DEFAULT_DRAFT_AMOUNTS = (4, 8)
"""Of KoboldCpp's earlier and later versions."""

MOST_KEYS = 1000
"""Keys that a file may hold; KoboldCpp writes fewer than 200."""


class _WrongTypeError(Exception):
    """What the value should have been."""


class _NoEffectError(Exception):
    """Why the value counts for nothing."""


def parse_kcpps(text: str, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that a file holds, by NKAT's names, and its ignored keys with the reasons.

    Only the types that KoboldCpp writes are taken; names behind `nkat_` and ranges are for the caller to
    check. `where` names the file in messages. Raises `ConfigError`.
    """
    try:
        keys = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON, as KoboldCpp's settings files are: {error}") from None
    if not isinstance(keys, dict):
        raise ConfigError(f"{where} is not one of KoboldCpp's settings files: it holds no JSON object")
    if len(keys) > MOST_KEYS:
        raise ConfigError(f"{where} holds {len(keys)} keys; KoboldCpp writes no more than {MOST_KEYS}")
    values: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for key, value in _with_preferred_keys_last(keys).items():
        if key.startswith(OWN_PREFIX):
            continue
        if key not in _READERS:
            if not is_neutral(key, value):
                ignored[key] = IGNORED_KEYS.get(key, UNKNOWN)
            continue
        name, read = _READERS[key]
        try:
            found = read(value)
        except _NoEffectError as reason:
            ignored[key] = str(reason)
        except _WrongTypeError as wanted:
            shown = "" if key == "password" else f", not {reprlib.repr(value)}"
            raise ConfigError(f"bad value for {key} in {where}: {wanted}{shown}") from None
        else:
            if found is not None:
                values[name] = found
    values |= {
        key.removeprefix(OWN_PREFIX): value for key, value in keys.items() if key.startswith(OWN_PREFIX)
    }
    return values, ignored


def kcpps_text(values: Mapping[str, Any]) -> str:
    """The settings as the text of a `.kcpps` file; `parse_kcpps` gives the same settings back.

    `values`: set settings by NKAT's names, as JSON has them. What KoboldCpp's keys cannot say, and what it
    has no keys for, is written with `nkat_` before its name.
    """
    keys: dict[str, Any] = {}
    for name, value in values.items():
        keys |= {key: _WRITERS.get(key, _as_it_is)(value) for key in _KEYS.get(name, ())}
    heard, _ = parse_kcpps(json.dumps(keys), "the exported settings")
    keys |= {OWN_PREFIX + name: value for name, value in values.items() if heard.get(name) != value}
    return json.dumps(keys, indent=2) + "\n"


def _with_preferred_keys_last(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Where two keys say the same setting, the one that KoboldCpp prefers comes later and wins."""
    ranks = {key: rank for rank, key in enumerate(_PREFERRED)}
    return {key: keys[key] for key in sorted(keys, key=lambda key: ranks.get(key, -1))}


def _as_it_is(value: Any) -> Any:
    return value


def _switch(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise _WrongTypeError("true or false is wanted")


def _set_switch(value: Any) -> bool | None:
    """A switch of which KoboldCpp's default, off, says nothing."""
    return True if _switch(value) else None


def _whole(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _WrongTypeError("a whole number is wanted")


def _positive(value: Any) -> int | None:
    """A number of which 0 and less mean: as the program thinks best."""
    number = _whole(value)
    return None if number is None or number < 1 else number


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise _WrongTypeError("a text is wanted")


def _file_name(value: Any) -> str | None:
    if isinstance(value, dict):
        raise _NoEffectError("NKAT takes a file name here, not what the file holds")
    return _text(value)


def _model(value: Any) -> str | None:
    """One file, or several, of which the first one counts: NKAT finds the parts of a split model."""
    if isinstance(value, list):
        return _text(value[0]) if value else None
    return _text(value)


def _host(value: Any) -> str | None:
    if value == "":
        raise _NoEffectError(
            "empty is every address of the machine in KoboldCpp; say --host 0.0.0.0 for that"
        )
    return _text(value)


def _queue(value: Any) -> int | None:
    """KoboldCpp takes numbers below 0 for none."""
    number = _whole(value)
    return None if number is None else max(number, 0)


def _chosen_port(value: Any) -> int | None:
    """The port given without a flag, which counts unless it is the default."""
    number = _whole(value)
    return None if number == DEFAULT_PORT else _positive(number)


def _batch(value: Any) -> int | None:
    if value == -1:
        raise _NoEffectError("NKAT always computes prompts in batches")
    return _positive(value)


def _together(value: Any) -> int | None:
    """0 and 1 are KoboldCpp's word for no batching, its default; with NKAT it changes no reply."""
    number = _positive(value)
    return None if number == 1 else number


def _draft_amount(value: Any) -> int | None:
    """KoboldCpp writes its default with a draft model and without; only another number asks for drafts."""
    number = _positive(value)
    return None if number in DEFAULT_DRAFT_AMOUNTS else number


def _level(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    number = _whole(value)
    return None if number is None else number >= 1


def _adapter(value: Any) -> str | None:
    """KoboldCpp guesses tags by default where NKAT has the template itself."""
    if isinstance(value, dict):
        return json.dumps(value)
    name = _text(value)
    return None if name == "AutoGuess" else name


def _certificate(value: Any) -> list[str] | None:
    if value is None or value == []:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(name, str) for name in value):
        return value if all(value) else None
    raise _WrongTypeError("a list of two files, certificate and key, is wanted")


def _counted(value: Any) -> int | None:
    """A number of which those below 0 mean: as the program thinks best."""
    number = _whole(value)
    return None if number is None or number < 0 else number


def _numbers(value: Any) -> list[float] | None:
    if value is None or value == []:
        return None
    if isinstance(value, list) and all(type(one) in (int, float) for one in value):
        return value
    raise _WrongTypeError("a list of numbers is wanted")


def _gpu(value: Any) -> int | None:
    """Of KoboldCpp's words for CUDA only the number of a device says something to NKAT."""
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(type(one) in (int, str) for one in value):
        raise _WrongTypeError("a list of words is wanted")
    number = chosen_gpu(value)
    if number is None:
        raise _NoEffectError(IGNORED_KEYS["usecuda"])
    return None if number < 0 else number


def _cache_type(value: Any) -> int | None:
    if value is None:
        return None
    name = str(value) if type(value) in (int, str) else ""
    if name not in CACHE_TYPES:
        raise _WrongTypeError(f"one of {', '.join(CACHE_TYPES)} is wanted")
    return CACHE_TYPES[name]


def _cpu(value: Any) -> str | None:
    return "cpu" if _switch(value) else None


_READERS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "model": ("model", _model),
    "model_param": ("model", _model),
    "host": ("host", _host),
    "port": ("port", _whole),
    "port_param": ("port", _chosen_port),
    "contextsize": ("contextsize", _positive),
    "threads": ("threads", _positive),
    "usecpu": ("device", _cpu),
    "noblas": ("device", _cpu),
    "gpulayers": ("gpulayers", _counted),
    "tensor_split": ("tensor_split", _numbers),
    "usecublas": ("maingpu", _gpu),
    "usecuda": ("maingpu", _gpu),
    "maingpu": ("maingpu", _counted),
    "quantkv": ("quantkv", _cache_type),
    "parallelrequests": ("parallelrequests", _together),
    "multiuser": ("multiuser", _queue),
    "blasbatchsize": ("blasbatchsize", _batch),
    "batchsize": ("blasbatchsize", _batch),
    "noshift": ("noshift", _switch),
    "draftmodel": ("draftmodel", _text),
    "draftamount": ("draftamount", _draft_amount),
    "defaultgenamt": ("defaultgenamt", _positive),
    "genlimit": ("genlimit", _positive),
    "maxrequestsize": ("maxrequestsize", _positive),
    "password": ("password", _text),
    "ssl": ("ssl", _certificate),
    "chatcompletionsadapter": ("chatcompletionsadapter", _adapter),
    "jinja": ("jinja", _set_switch),
    "preloadstory": ("preloadstory", _file_name),
    "savedatafile": ("savedatafile", _file_name),
    "quiet": ("quiet", _switch),
    "debugmode": ("debugmode", _level),
}
"""Keys that mean a setting of NKAT's: its name, and what its value is for NKAT; None leaves it unset."""

_PREFERRED = ("model_param", "port_param", "batchsize", "usecuda", "maingpu")
"""Of several keys for one setting those that win, if they are set; the later the rather."""

_ONLY_READ = ("noblas", "usecublas", "usecuda")
"""Keys that say with other words what another key says."""

_KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(key for key, (own, _) in _READERS.items() if own == name and key not in _ONLY_READ)
    for name, _ in _READERS.values()
}
"""Keys to write for a setting."""

_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "usecpu": lambda device: device == "cpu",
    "debugmode": int,
}
"""Keys whose values are other than the setting's."""
