"""Bookkeeping of the paged KV cache: which block belongs to whom. Knows no tensors.

A block holds the keys and values of `block_size` consecutive tokens. Blocks are shared between
sequences that start with the same tokens: a full block is registered under the key of the prefix in
front of it and its own tokens. The dictionary compares those tokens, so that a prefix is shared only
when it really is the same, whatever the hash says.

    free queue:  [oldest ... newest]     blocks without an owner; a registered one can still be found
                                         by its prefix and taken back, until it is handed out anew
"""

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from engine.sequence import Sequence

PrefixEntry = tuple[int, tuple[int, ...]]
"""Key of the prefix in front of a block, and the block's own tokens.

Keys are above 0; those of the empty prefix, one for each setting of theta, are not.
"""


@dataclass(slots=True)
class Block:
    """One physical block. `entry` and `key` are set while its content can be found by prefix.

    `version` counts how often it was handed out: as long as that stays, what a sequence has left in it does.
    """

    owners: int = 0
    version: int = 0
    entry: PrefixEntry | None = None
    key: int = 0


class BlockManager:
    """Hands out blocks, shares prefixes, takes blocks back.

    Raises nothing in normal use: a request for blocks that cannot be met returns False and changes
    nothing. Only `check_integrity` raises, `AssertionError`, when the books are wrong.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._blocks = [Block() for _ in range(num_blocks)]
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._registered: dict[PrefixEntry, int] = {}
        self._next_key = 1

    @property
    def num_free(self) -> int:
        """Blocks without an owner."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_size)

    def take_prefix(self, sequence: Sequence) -> int:
        """Give a new sequence the longest cached prefix of its tokens; return its length in tokens.

        At least one token is left to compute, because its logits are needed.
        """
        assert not sequence.block_table
        key = sequence.theta.root
        for entry_tokens in self._full_blocks(sequence.tokens, 0, len(sequence.tokens) - 1):
            index = self._registered.get((key, entry_tokens))
            if index is None:
                break
            block = self._blocks[index]
            if block.owners == 0:
                del self._free[index]
            block.owners += 1
            key = block.key
            sequence.block_table.append(index)
            sequence.prefix_keys.append(key)
        sequence.computed = len(sequence.block_table) * self.block_size
        return sequence.computed

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Make the sequence's table cover so many tokens. False, and no change, without room."""
        missing = self.blocks_for(tokens) - len(sequence.block_table)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            index, _ = self._free.popitem(last=False)
            block = self._blocks[index]
            self._forget(block)
            block.owners = 1
            block.version += 1
            sequence.block_table.append(index)
        return True

    def versions(self, table: Tokens[int]) -> tuple[int, ...]:
        """How often each block of a table has been handed out so far."""
        return tuple(self._blocks[index].version for index in table)

    def register(self, sequence: Sequence) -> None:
        """Let others find the blocks that the sequence's computed tokens have filled.

        Who finds a prefix gets what it would have computed, to the bit: blocks with shifted tokens, and all
        behind them, stay the sequence's own.
        """
        first = len(sequence.prefix_keys)
        stop = sequence.computed
        if sequence.shifted_from is not None:
            stop = min(stop, sequence.shifted_from)
        for number, tokens in enumerate(self._full_blocks(sequence.tokens, first, stop), start=first):
            parent = sequence.prefix_keys[-1] if sequence.prefix_keys else sequence.theta.root
            entry = (parent, tokens)
            index = self._registered.get(entry)
            if index is None:
                index = sequence.block_table[number]
                block = self._blocks[index]
                block.entry, block.key = entry, self._next_key
                self._registered[entry] = index
                self._next_key += 1
            # Two sequences may have computed the same block side by side: the first is found.
            sequence.prefix_keys.append(self._blocks[index].key)

    def truncate(self, sequence: Sequence, tokens: int) -> None:
        """Forget the sequence's computed tokens past `tokens`, and give back the blocks behind them.

        A block that keeps only a part of its tokens must be the sequence's alone, since the rest is
        about to be overwritten: a registered or shared one is given back too, and its tokens are
        computed again.
        """
        keep = tokens // self.block_size
        if tokens % self.block_size and keep >= len(sequence.prefix_keys):
            keep += 1
        else:
            tokens = keep * self.block_size
        self._release(sequence.block_table[keep:])
        del sequence.block_table[keep:]
        del sequence.prefix_keys[keep:]
        sequence.computed = min(sequence.computed, tokens)
        if sequence.shifted_from is not None and sequence.computed <= sequence.shifted_from:
            sequence.shifted_from = None

    def free(self, sequence: Sequence) -> None:
        """Give back all blocks of the sequence. Their content can be found until it is overwritten."""
        self._release(sequence.block_table)
        sequence.block_table.clear()
        sequence.prefix_keys.clear()
        sequence.computed = 0
        sequence.shifted_from = sequence.moved = None

    def forget_prefixes(self) -> None:
        """Let no cached prefix be found any more. No sequence may hold blocks."""
        assert self.num_free == self.num_blocks, "a sequence still holds blocks"
        for block in self._blocks:
            self._forget(block)

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Compare the books with the tables of all sequences that hold blocks."""
        owners = [0] * self.num_blocks
        for sequence in sequences:
            assert len(sequence.block_table) >= self.blocks_for(sequence.computed), "table too short"
            assert len(sequence.prefix_keys) <= len(sequence.block_table), "more keys than blocks"
            if sequence.moved is not None:
                assert sequence.computed < sequence.moved.start, "moved tokens are not counted"
                moved = self.blocks_for(sequence.moved.stop)
                assert len(sequence.block_table) >= moved, "table too short for moved tokens"
            if sequence.shifted_from is not None:
                exact = len(sequence.prefix_keys) * self.block_size
                assert exact <= sequence.shifted_from, "shifted tokens are registered"
            for index in sequence.block_table:
                owners[index] += 1
        for index, block in enumerate(self._blocks):
            assert block.owners == owners[index], f"block {index}: {block.owners} owners, not {owners[index]}"
            assert (block.owners == 0) == (index in self._free), f"block {index}: free list is wrong"
            if block.entry is not None:
                assert self._registered.get(block.entry) == index, f"block {index}: not registered"
        for entry, index in self._registered.items():
            assert self._blocks[index].entry == entry, f"block {index}: registered under another prefix"

    def _full_blocks(self, tokens: Tokens[int], first: int, stop: int) -> Iterable[tuple[int, ...]]:
        """The token tuples of the full blocks `first`, `first` + 1, ... within `tokens[:stop]`."""
        size = self.block_size
        for start in range(first * size, stop - size + 1, size):
            yield tuple(tokens[start : start + size])

    def _release(self, table: Tokens[int]) -> None:
        # The end of a prefix is of use only behind its beginning: it goes to the front of the queue.
        for index in reversed(table):
            block = self._blocks[index]
            block.owners -= 1
            if block.owners == 0:
                self._free[index] = None

    def _forget(self, block: Block) -> None:
        if block.entry is not None:
            del self._registered[block.entry]
            block.entry, block.key = None, 0
