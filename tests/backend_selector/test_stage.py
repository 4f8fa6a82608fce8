"""What a device has beside the weights, and how much of its memory decisions may take."""

from dataclasses import replace

import pytest

from backend_selector.facts import MachineFacts, Wishes
from backend_selector.placement import place
from backend_selector.select import select_backend
from backend_selector.sizes import gib
from tests.backend_selector.machines import GIB, LARGE, MIB, machine, with_cards

MACHINE = with_cards(40 * GIB, 32 * GIB)


def test_logits_are_drawn_from_on_the_last_card_and_graphs_recorded_on_the_only_one() -> None:
    front, last = place(LARGE, MACHINE, Wishes(tensor_split=(1, 1))).stages
    (only,) = place(LARGE, MACHINE, Wishes()).stages
    logits = 3 * 4 * LARGE.widths.vocabulary * Wishes().sequences
    assert last.workspace - front.workspace == logits
    assert only.workspace - last.workspace == 128 * MIB
    for_two, for_one = (place(LARGE, MACHINE, Wishes(sequences=count)).stages[0] for count in (2, 1))
    assert for_two.workspace - for_one.workspace == 3 * 4 * LARGE.widths.vocabulary


def test_a_batch_of_more_tokens_takes_more() -> None:
    one, more = (place(LARGE, MACHINE, Wishes(step_tokens=count)).stages[0] for count in (512, 1024))
    widths = LARGE.widths
    row = 4 * (4 * widths.model + 2 * widths.attention + 4 * widths.feed_forward)
    assert more.workspace - one.workspace == 512 * row


@pytest.mark.parametrize(
    ("facts", "wishes", "kernels", "share"),
    [
        (with_cards(6 * GIB), Wishes(gpulayers=33), "triton", 32),
        (machine(5 * GIB), Wishes(), "reference", 8),
    ],
)
def test_our_own_decisions_leave_a_margin_and_the_users_need_not(
    facts: MachineFacts, wishes: Wishes, kernels: str, share: int
) -> None:
    placement = place(LARGE, facts, wishes)
    (stage,) = placement.stages
    assert stage.kernels == kernels
    left, block = stage.free // share, 16 * stage.kv_bytes_per_token
    (ours,) = select_backend(LARGE, facts, wishes).shares
    assert stage.free - left - block < ours.used <= stage.free - left
    most = placement.fits // 16 * 16
    (theirs,) = select_backend(LARGE, facts, replace(wishes, kvtokens=most)).shares
    assert stage.free - block < theirs.used <= stage.free


def test_a_large_cache_is_worth_fewer_layers() -> None:
    """What the cache must hold counts where layers are placed, as the context does."""
    usual, large = (place(LARGE, with_cards(6 * GIB), Wishes(kvtokens=tokens)) for tokens in (None, 40_000))
    assert usual.gpu_layers == 33
    assert large.gpu_layers < 33
    assert large.spare >= 40_000


def test_a_context_that_was_asked_for_may_take_the_margin() -> None:
    facts = with_cards(6 * GIB)
    placement = place(LARGE, facts, Wishes(gpulayers=33))
    context = (placement.spare // 16 + 2) * 16
    assert context <= placement.fits
    choice = select_backend(LARGE, facts, Wishes(gpulayers=33, contextsize=context))
    assert (choice.context.value, choice.kv_tokens.value) == (context, context)


def test_a_cache_takes_whole_blocks() -> None:
    choice = select_backend(LARGE, MACHINE, Wishes(contextsize=1000, kvtokens=1001))
    (share,) = choice.shares
    assert choice.kv_tokens.value == 1001
    assert share.cache == 1008 * 128 * 1024


def test_a_device_without_blocks_has_no_part_in_the_cache() -> None:
    """Neither its room nor its kernels count: it has the output matrix alone."""
    small = select_backend(LARGE, with_cards(900 * MIB, available=5200 * MIB), Wishes(gpulayers=1))
    (cpu, cuda) = small.shares
    assert (cuda.layers, cuda.cache) == (0, 0)
    assert cpu.free - cpu.weights > cuda.free - cuda.weights - cuda.workspace
    assert gib(cpu.free - cpu.weights) in small.context.reason

    cards = with_cards(40 * GIB, 32 * GIB)
    mixed = replace(cards, cuda=(cards.cuda[0], replace(cards.cuda[1], kernels=("reference",))))
    choice = select_backend(LARGE, mixed, Wishes(tensor_split=(96, 4), quantkv=1))
    assert choice.layers.value == (("cuda:0", 32), ("cuda:1", 0))
    assert not any("--quantkv" in warning for warning in choice.warnings)
    other = select_backend(LARGE, mixed, Wishes(tensor_split=(1, 1), quantkv=1))
    assert any("--quantkv" in warning for warning in other.warnings)
