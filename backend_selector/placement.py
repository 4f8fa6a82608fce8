"""Where the layers of a model go. Pure.

As with KoboldCpp, the output matrix with its norm counts as one more layer, and layers on GPUs are the last
ones: a step begins on the processor and ends on a card, where tokens are drawn. The embedding is where the
first block is.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from backend_selector.facts import NOTHING, CudaDevice, FileFacts, MachineFacts, Wishes
from backend_selector.stage import TRITON, Stage, make_stage
from engine.errors import ConfigError

WORTH_A_PLACE = 4096
"""Tokens of context that a device should hold, if the model knows that many: layers on a fast device are
worth more than a longer context."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A model on one device, or in stages on several."""

    stages: tuple[Stage, ...]
    reason: str
    """Why there."""
    kernels_reason: str
    layers_reason: str = "the whole model"

    @property
    def device(self) -> str:
        """As the engine takes it: a device, or all of them with their layers, `cpu=9,cuda:0=24`."""
        if len(self.stages) == 1:
            return self.stages[0].device
        return ",".join(f"{stage.device}={stage.blocks}" for stage in self.stages)

    @property
    def kernels(self) -> str:
        """As the engine takes them: the names, each once, joined by `+`."""
        return "+".join(dict.fromkeys(stage.kernels for stage in self.stages))

    @property
    def gpu_layers(self) -> int:
        """Layers on GPUs, the output counted as one."""
        blocks = sum(stage.blocks for stage in self.stages if stage.device != "cpu")
        return blocks + (self.stages[-1].device != "cpu")

    @property
    def fits(self) -> int:
        """Tokens that a KV cache can hold beside the weights on every device."""
        return min(tokens for tokens in (stage.tokens() for stage in self.stages) if tokens is not None)

    @property
    def spare(self) -> int:
        """The same, leaving the margin that decisions of our own leave."""
        counts = (stage.tokens(stage.margin) for stage in self.stages)
        return min(tokens for tokens in counts if tokens is not None)


def place(file: FileFacts, machine: MachineFacts, wishes: Wishes) -> Placement:
    """Where the wishes put the model, else on one CUDA device that can hold all of it, else on several, else
    as many layers as fit and the others on the CPU.

    Raises `ConfigError` for a device that there is not, and for kernels that it cannot run.
    """
    if wishes.device == "cpu":
        return _on_cpu(file, machine, wishes, "as asked for")
    cards = _cards(machine, wishes)
    if not cards:
        return _on_cpu(file, machine, wishes, _without_cards(machine))
    if wishes.gpulayers == 0:
        return _on_cpu(file, machine, wishes, "no layers are wanted on GPUs")
    if wishes.gpulayers is not None and wishes.gpulayers > 0:
        return _at_best(file, machine, wishes, cards, min(wishes.gpulayers, file.layers + 1))
    return _as_much_as_fits(file, machine, wishes, cards)


def _cards(machine: MachineFacts, wishes: Wishes) -> list[CudaDevice]:
    """The CUDA devices that may be used; in the order of their numbers. Raises `ConfigError`."""
    if wishes.device.startswith("cuda"):
        _, _, index = wishes.device.partition(":")
        # Without a number all that are named by the shares, as torch has it else the first.
        if index or wishes.tensor_split is None:
            return [_card(machine, int(index or 0))]
    if wishes.tensor_split is not None:
        if not machine.cuda and wishes.device == "auto":
            return []
        return [_card(machine, number) for number, share in enumerate(wishes.tensor_split) if share > 0]
    if wishes.maingpu is not None and wishes.maingpu >= 0 and machine.cuda:
        return [_card(machine, wishes.maingpu)]
    # Who wants kernels of the processor, and no layers on GPUs, wants the processor.
    anything = wishes.kernels == "auto" or wishes.gpulayers is not None
    able = [device for device in machine.cuda if anything or wishes.kernels in device.kernels]
    return sorted(able, key=lambda device: device.index)


def _without_cards(machine: MachineFacts) -> str:
    return "no CUDA device can run these kernels" if machine.cuda else "there is no CUDA device"


def _card(machine: MachineFacts, index: int) -> CudaDevice:
    for device in machine.cuda:
        if device.index == index:
            return device
    seen = f"there are {len(machine.cuda)} CUDA devices" if machine.cuda else "there is no CUDA device"
    raise ConfigError(f"no device cuda:{index}: {seen}; use --device cpu, or ask nkat doctor")


def _tokens(file: FileFacts, wishes: Wishes) -> int:
    """What a KV cache must hold at least to be worth a place."""
    return max(wishes.contextsize or min(file.trained_context, WORTH_A_PLACE), wishes.kvtokens or 0)


def _groups(cards: Sequence[CudaDevice], wishes: Wishes) -> Iterator[list[CudaDevice]]:
    """Each card alone, the one with the most free memory first, then all; with shares all at once.

    A step on one card needs no copies, and can be recorded.
    """
    if wishes.tensor_split is None:
        for card in sorted(cards, key=lambda card: (-card.free, card.index)):
            yield [card]
    if wishes.tensor_split is not None or len(cards) > 1:
        yield list(cards)


def _at_best(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, cards: Sequence[CudaDevice], layers: int
) -> Placement:
    """So many layers on the first group of cards that has room for them, else on all cards."""
    for group in _groups(cards, wishes):
        split = _split(file, machine, wishes, group, layers, "as asked for")
        if split.spare >= _tokens(file, wishes):
            break
    return split


def _as_much_as_fits(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, cards: Sequence[CudaDevice]
) -> Placement:
    """The whole model on one card, on all, or the last layers on cards and the first on the CPU."""
    tokens = _tokens(file, wishes)
    everything = file.layers + 1
    asked = wishes.device != "auto"
    reason = "as asked for"
    for group in _groups(cards, wishes):
        if not asked:
            reason = f"{' and '.join(card.name for card in group)} can hold all weights and the context"
        whole = _split(file, machine, wishes, group, everything, reason)
        if all(stage.dense for stage in whole.stages) and whole.spare >= tokens:
            return whole
    if all(wishes.kernels != "reference" and TRITON in card.kernels for card in cards):
        for layers in range(everything - 1, 0, -1):
            part = _split(
                file, machine, wishes, cards, layers, reason if asked else "as many layers as fit are on GPUs"
            )
            if part.spare >= tokens:
                return part
    if asked:
        # What the user wants on this device fails for want of memory with words on what would fit.
        return _split(file, machine, wishes, cards, everything, reason)
    return _on_cpu(
        file, machine, wishes, "no CUDA device can hold the weights and the context, or a part of the layers"
    )


def _on_cpu(file: FileFacts, machine: MachineFacts, wishes: Wishes, reason: str) -> Placement:
    stage = make_stage(
        file,
        wishes,
        file.whole,
        device="cpu",
        kernels=_kernels({"cpu": machine.kernels}, wishes)[0],
        free=machine.available_memory,
        blocks=file.layers,
    )
    return Placement((stage,), reason, _kernels_reason(wishes))


def _split(
    file: FileFacts,
    machine: MachineFacts,
    wishes: Wishes,
    cards: Sequence[CudaDevice],
    layers: int,
    reason: str,
) -> Placement:
    """The last so many layers, 1 to all with the output, on the cards; the others on the CPU."""
    counts = Counter(_owners(_shares(wishes, cards), layers))
    used = [(card, counts[number]) for number, card in enumerate(cards) if counts[number]]
    rest = file.layers + 1 - layers
    there = {"cpu": machine.kernels} if rest else {}
    there |= {f"cuda:{card.index}": card.kernels for card, _ in used}
    blocks = [*([rest] if rest else []), *(count for _, count in used)]
    # The output is the last layer on the last card.
    blocks[-1] -= 1
    ends = list(accumulate(blocks))
    sums = list(accumulate(file.blocks, initial=NOTHING))
    free = {"cpu": machine.available_memory} | {f"cuda:{card.index}": card.free for card, _ in used}
    stages: list[Stage] = []
    for device, kernels, count, end in zip(there, _kernels(there, wishes), blocks, ends, strict=True):
        sizes = sums[end] - sums[end - count]
        last = len(stages) == len(blocks) - 1
        if not stages or (last and file.tied):
            sizes += file.embedding
        if last:
            sizes += file.output
        stages.append(
            make_stage(
                file,
                wishes,
                sizes,
                device=device,
                kernels=kernels,
                free=free[device],
                blocks=count,
                output=last,
            )
        )
    told = (
        "the whole model"
        if len(stages) == 1
        else f"{layers} of {file.layers + 1} with the output are on GPUs"
    )
    return Placement(tuple(stages), reason, _kernels_reason(wishes), told)


def _shares(wishes: Wishes, cards: Sequence[CudaDevice]) -> list[float]:
    """What part of the layers each card gets: as asked for, else by its free memory."""
    if wishes.tensor_split is not None and len(cards) > 1:
        return [wishes.tensor_split[card.index] for card in cards]
    return [max(1, card.free) for card in cards]


def _owners(shares: Sequence[float], layers: int) -> list[int]:
    """Which of the shares each of so many layers belongs to, in order.

    llama.cpp's rule: layer i of n goes to the first whose share, with all in front of it, is more than i / n
    of their sum.
    """
    sums = list(accumulate(shares))
    bounds = [some / sums[-1] for some in sums]
    return [bisect_right(bounds, layer / layers) for layer in range(layers)]


def _kernels(there: Mapping[str, Sequence[str]], wishes: Wishes) -> list[str]:
    """The kernels of each device, of those that can run there; the wish counts where it can be met.

    Raises `ConfigError` for one that can be met nowhere.
    """
    if wishes.kernels != "auto" and not any(wishes.kernels in names for names in there.values()):
        device, names = list(there.items())[-1]
        raise ConfigError(f"no kernels {wishes.kernels!r:.40} on {device}; there are: {', '.join(names)}")
    return [wishes.kernels if wishes.kernels in names else names[0] for names in there.values()]


def _kernels_reason(wishes: Wishes) -> str:
    return "the best that can run there" if wishes.kernels == "auto" else "as asked for"
