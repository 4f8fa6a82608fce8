"""KoboldCpp's flags and keys that NKAT takes without having the setting, and why each has no effect.

One table for the command line and for `.kcpps` files, whose keys are the flags' names. Facts about
KoboldCpp are those of its versions 1.76 to 1.117.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COMMANDS = ("serve", "demo")
"""The commands that take KoboldCpp's flags."""

_REASONS: Mapping[str, str] = {
    "as many layers as fit go to GPUs, or --gpulayers of them": "autofit autofitpadding",
    "layers are split between devices, each as a whole": "splitmode moecpu overridetensors",
    "keys and values lie where their layers are": "lowvram",
    "a step goes through the devices in turn": "nopipelineparallel pipelineparallel",
    "CUDA devices are used where there are any": "usecuda usecublas",
    "NKAT computes on CUDA devices and on the processor alone": "usehipblas usevulkan useclblast",
    "there is one way of computing products": "nommq",
    "--kernels says which instructions are used": "noavx2 failsafe",
    "prompts are computed with --threads too": "blasthreads",
    "priorities are the system's to give": "highpriority foreground",
    "NKAT decides how a file is held in memory": "usemmap nommap usemlock",
    "each device has one way of computing attention": "flashattention noflashattention",
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
    "jinjathink": ("default",),
    "loramult": (1.0,),
    "moeexperts": (-1,),
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

CACHE_TYPES: Mapping[str, int] = {
    "f16": 0,
    "bf16": 0,
    "q8_0": 1,
    "q5_1": 1,
    "q4_0": 2,
    "0": 0,
    "1": 1,
    "2": 2,
    "3": 0,
}
"""KoboldCpp's types of the KV cache as numbers of `--quantkv`; where NKAT has none, the next finer."""

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
    "-ngl": "--gpulayers",
    "--gpu-layers": "--gpulayers",
    "--n-gpu-layers": "--gpulayers",
    "-ts": "--tensor-split",
    "--tensorsplit": "--tensor-split",
    "--tensor_split": "--tensor-split",
    "-mg": "--maingpu",
    "--main-gpu": "--maingpu",
}
"""KoboldCpp's other names of flags that NKAT has."""

_OTHER_NAMES: Mapping[str, str] = {
    "-sm": "splitmode",
    "--split-mode": "splitmode",
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
_LAYERS_OF_A_BARE_GPULAYERS = "1"
_CUDA_FLAGS = ("usecuda", "usecublas")


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
        given = [value, *values] if equals else list(values)
        number = chosen_gpu(given) if key in _CUDA_FLAGS else None
        if number is not None:
            own += ["--maingpu", str(number)]
            continue
        if key in IGNORED_FLAGS:
            ignored[key] = None
            own += values if equals else []
            continue
        own += _respelled(_OWN_NAMES.get(name, name), given, equals=bool(equals))
    return KoboldArguments(tuple(own), tuple(ignored))


def chosen_gpu(words: Iterable[Any]) -> int | None:
    """The device that KoboldCpp's `--usecuda` names among its words, -1 for all; None: it names none."""
    for word in map(str, words):
        if word == "all":
            return -1
        if re.fullmatch(r"\d{1,4}", word, re.ASCII):
            return int(word)
    return None


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
        case (("--usecpu" | "--noblas" | "--no-cuda"), _):
            return ["--device", "cpu", *values]
        case "--gpulayers", []:
            return [flag, _LAYERS_OF_A_BARE_GPULAYERS]
        case "--tensor-split", [_, *_]:
            return [flag, ",".join(values)]
        case "--quantkv", [name, *rest] if name in CACHE_TYPES:
            return [flag, str(CACHE_TYPES[name]), *rest]
        case "--multiuser", []:
            return [flag, _QUEUE_OF_A_BARE_MULTIUSER]
        case "--debugmode", [level, *rest] if _NUMBER.fullmatch(level):
            return ["--debugmode" if float(level) >= 1 else "--no-debugmode", *rest]
    return [f"{flag}={values[0]}", *values[1:]] if equals else [flag, *values]
