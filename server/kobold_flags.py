"""KoboldCpp's flags and keys that NKAT takes without having the setting, and why each has no effect.

One table for the command line and for `.kcpps` files, whose keys are the flags' names. Facts about
KoboldCpp are those of its versions 1.76 to 1.117.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COMMANDS = ("serve", "demo")
"""The commands that take KoboldCpp's flags."""

_REASONS: Mapping[str, str] = {
    "the whole model runs on one device": (
        "gpulayers tensor_split splitmode autofit autofitpadding lowvram moecpu overridetensors "
        "nopipelineparallel pipelineparallel"
    ),
    "--device says where the model runs": "usecuda usecublas usehipblas usevulkan useclblast maingpu nommq",
    "--kernels says which instructions are used": "noavx2 failsafe",
    "prompts are computed with --threads too": "blasthreads",
    "priorities are the system's to give": "highpriority foreground",
    "NKAT decides how a file is held in memory": "usemmap nommap usemlock",
    "each device has one way of computing attention": "flashattention noflashattention",
    "the KV cache has the type that the kernels want": "quantkv",
    "beginnings that prompts share are always kept": "smartcontext smartcache nofastforward",
    "windows of attention are the model file's": "noswa useswa swapadding",
    "the model file's own values hold": "ropeconfig overridenativecontext overridekv moeexperts",
    "the model file says whether prompts begin with BOS": "nobostoken",
    "NKAT applies no LoRA": "lora loramult",
    "NKAT reads text only": "mmproj mmprojcpu visionmaxres visionmintokens visionmaxtokens",
    "a draft model runs where the model does": "draftgpulayers draftgpusplit",
    "NKAT guesses ahead with --draftmodel or --draftamount": "usemtp",
    "NKAT has no classifier-free guidance": "enableguidance",
    "NKAT makes no images": (
        "sdmodel sdthreads sdclamped sdclampedsoft sdt5xxl sdclip1 sdclip2 sdclipl sdclipg sdphotomaker "
        "sdupscaler sdflashattention sdoffloadcpu sdvaecpu sdclipgpu sdconvdirect sdvae sdvaeauto sdaudiovae "
        "sdvaedevice sdclipdevice sdquant sdlora sdloramult sdmaingpu sdtiledvae sdnotile sdvramlimit "
        "sdgendefaults sdconfig"
    ),
    "NKAT transcribes no speech": "whispermodel",
    "NKAT makes no speech": "ttsmodel ttswavtokenizer ttsgpu ttsmaxlen ttsthreads ttsdir",
    "NKAT makes no music": "musicllm musicembeddings musicdiffusion musicvae musiclowvram",
    "embeddings are the served model's": "embeddingsmodel embeddingsmaxctx embeddingsgpu",
    "NKAT is no worker of the AI Horde": (
        "hordemodelname hordeworkername hordekey hordemaxctx hordegenlen hordeconfig"
    ),
    "the model runs on this machine alone": "rpcmode rpcport rpchost rpcdevice rpctargets",
    "NKAT serves one model until it ends": (
        "admin adminpassword admindir adminunloadtimeout routermode autoswapmode baseconfig nomodel"
    ),
    "requests have as long as they need": "reqtimeout",
    "NKAT does not count requests by address": "ratelimit",
    "NKAT shares no stories among players": "multiplayer",
    "NKAT searches no web": "websearch",
    "NKAT is no bridge to MCP servers": "mcpfile",
    "NKAT opens no tunnel": "remotetunnel",
    "a server ends by Ctrl-C or SIGTERM alone": "singleinstance",
    "NKAT fetches nothing": "nocertify downloaddir",
    "a missing file is an error": "ignoremissing",
    "NKAT starts no other programs": "launch onready allow-config-onready",
    "there is no launcher": "skiplauncher showgui istemplate",
    "clients say this in their requests": "gendefaults gendefaultsoverwrite reasoningeffort jinjathink",
    "chats use the model's own template, or --chatcompletionsadapter": (
        "jinja_tools jinja_kwargs jinjatemplate"
    ),
    "there is one version of it": "forceversion",
}

_ACTIONS: Mapping[str, str] = {
    "nkat bench measures": "benchmark",
    "nkat select tells of a file": "analyze",
    "this asks for something else than to serve": (
        "cli prompt unpack version testmemory config exportconfig exporttemplate"
    ),
}
"""What a file may hold with no effect, but what nobody types who wants a server to start."""


def _by_key(reasons: Mapping[str, str]) -> dict[str, str]:
    return {key: reason for reason, keys in reasons.items() for key in keys.split()}


IGNORED_FLAGS: Mapping[str, str] = _by_key(_REASONS)
"""Flags of KoboldCpp, by name without dashes, with the reason why they have no effect."""

IGNORED_KEYS: Mapping[str, str] = {
    **IGNORED_FLAGS,
    **_by_key(_ACTIONS),
    "device": "a name of llama.cpp's; NKAT's own --device says where the model runs",
}
"""Keys of `.kcpps` files that have no effect, with the reason."""

_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "autofitpadding": (1024,),
    "draftgpulayers": (999,),
    "embeddingsmaxctx": (4096,),
    "gpulayers": (-1,),
    "jinjathink": ("default",),
    "loramult": (1.0,),
    "maingpu": (-1,),
    "moeexperts": (-1,),
    "quantkv": ("f16",),
    "reasoningeffort": ("default",),
    "reqtimeout": (600,),
    "ropeconfig": ([0.0, 10000.0],),
    "rpchost": ("0.0.0.0",),
    "rpcmode": ("disabled",),
    "rpcport": (5551,),
    "sdconvdirect": ("off",),
    "sdloramult": (1.0, [1.0]),
    "sdtiledvae": (640, 768),
    "splitmode": ("layer",),
    "ttsmaxlen": (4096,),
    "visionmaxres": (1024,),
    "visionmaxtokens": (-1,),
    "visionmintokens": (-1,),
}
"""What KoboldCpp writes for an ignored key that nobody touched, where that is not a neutral value."""

_OWN_NAMES: Mapping[str, str] = {
    "-m": "--model",
    "-c": "--contextsize",
    "--ctx-size": "--contextsize",
    "-t": "--threads",
    "-b": "--blasbatchsize",
    "--batchsize": "--blasbatchsize",
    "--batch-size": "--blasbatchsize",
    "--continuous-batching": "--parallelrequests",
    "--contbatch": "--parallelrequests",
    "--no-context-shift": "--noshift",
    "--promptlimit": "--genlimit",
    "-md": "--draftmodel",
    "--model-draft": "--draftmodel",
    "--draft-max": "--draftamount",
    "--draft-n": "--draftamount",
    "--spec-draft-n-max": "--draftamount",
}
"""KoboldCpp's other names of flags that NKAT has."""

_OTHER_NAMES: Mapping[str, str] = {
    "-ngl": "gpulayers",
    "--gpu-layers": "gpulayers",
    "--n-gpu-layers": "gpulayers",
    "-ts": "tensor_split",
    "--tensorsplit": "tensor_split",
    "--tensor-split": "tensor_split",
    "-sm": "splitmode",
    "--split-mode": "splitmode",
    "-mg": "maingpu",
    "--main-gpu": "maingpu",
    "-fit": "autofit",
    "--fit": "autofit",
    "-nkvo": "lowvram",
    "--no-kv-offload": "lowvram",
    "-ncmoe": "moecpu",
    "--n-cpu-moe": "moecpu",
    "-ot": "overridetensors",
    "--override-tensor": "overridetensors",
    "--override-kv": "overridekv",
    "-fa": "flashattention",
    "--flash-attn": "flashattention",
    "-nofa": "noflashattention",
    "--no-flash-attn": "noflashattention",
    "--mlock": "usemlock",
    "--no-mmap": "nommap",
    "--swa-full": "noswa",
    "-ngld": "draftgpulayers",
    "--gpu-layers-draft": "draftgpulayers",
    "--n-gpu-layers-draft": "draftgpulayers",
    "--batchthreads": "blasthreads",
    "--threadsbatch": "blasthreads",
    "--threads-batch": "blasthreads",
    "--no-mmproj-offload": "mmprojcpu",
    "--image-max-tokens": "visionmaxtokens",
    "--image-min-tokens": "visionmintokens",
    "--jinja-tools": "jinja_tools",
    "--jinjatools": "jinja_tools",
    "--jinja-kwargs": "jinja_kwargs",
    "--jinjakwargs": "jinja_kwargs",
    "--chat-template-kwargs": "jinja_kwargs",
    "--chat-template-file": "jinjatemplate",
}
"""KoboldCpp's other names of flags that have no effect."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_QUEUE_OF_A_BARE_MULTIUSER = "10"


@dataclass(frozen=True, slots=True)
class KoboldArguments:
    """A command line, taken apart."""

    own: tuple[str, ...]
    """What NKAT's parser is given."""
    ignored: tuple[str, ...]
    """Names of the flags without effect, each once, in the order of their coming."""


def take_apart(arguments: Sequence[str]) -> KoboldArguments:
    """The arguments of `nkat` without KoboldCpp's ignored flags, and with NKAT's names for the others.

    An ignored flag takes along what follows it up to the next flag, since those commands have no
    arguments of their own. Other commands than `COMMANDS` are left as they are. Raises nothing.
    """
    if not arguments or arguments[0] not in COMMANDS:
        return KoboldArguments(tuple(arguments), ())
    own = [arguments[0]]
    ignored: dict[str, None] = {}
    for flag, values in _groups(arguments[1:]):
        name, equals, value = flag.partition("=")
        key = _OTHER_NAMES.get(name, name.removeprefix("--") if name.startswith("--") else "")
        if key in IGNORED_FLAGS:
            ignored[key] = None
            own += values if equals else []
            continue
        given = [value, *values] if equals else list(values)
        own += _respelled(_OWN_NAMES.get(name, name), given, equals=bool(equals))
    return KoboldArguments(tuple(own), tuple(ignored))


def is_neutral(key: str, value: Any) -> bool:
    """Whether a key of a file says no more than that nobody touched it."""
    return not value or any(value == default for default in _DEFAULTS.get(key, ()))


def _groups(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with what follows it; what comes before the first flag is a flag for itself."""
    flag: str | None = None
    values: list[str] = []
    for argument in arguments:
        if argument.startswith("-") and not _NUMBER.fullmatch(argument):
            if flag is not None:
                yield flag, values
            flag, values = argument, []
        elif flag is None:
            yield argument, []
        else:
            values.append(argument)
    if flag is not None:
        yield flag, values


def _respelled(flag: str, values: list[str], *, equals: bool) -> list[str]:
    """A flag of NKAT's with its values, where KoboldCpp lets the value be left out or has another one."""
    match flag, values:
        case (("--usecpu" | "--noblas"), _):
            return ["--device", "cpu", *values]
        case "--multiuser", []:
            return [flag, _QUEUE_OF_A_BARE_MULTIUSER]
        case "--debugmode", [level, *rest] if _NUMBER.fullmatch(level):
            return ["--debugmode" if float(level) >= 1 else "--no-debugmode", *rest]
    return [f"{flag}={values[0]}", *values[1:]] if equals else [flag, *values]
